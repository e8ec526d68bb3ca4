# SPDX-License-Identifier: MIT
# cmake -DSOURCE=FOLDER -DOUTPUT=FILE.cpp -P commit.cmake: writes the commit that SOURCE is at, with "+" if it was changed since, as
# manage::commit. The file changes only when that does, so that nothing is built again for nothing.
execute_process(COMMAND git -C ${SOURCE} rev-parse --short=12 HEAD OUTPUT_VARIABLE commit OUTPUT_STRIP_TRAILING_WHITESPACE
  ERROR_QUIET RESULT_VARIABLE status)
execute_process(COMMAND git -C ${SOURCE} ls-files --error-unmatch CMakeLists.txt OUTPUT_QUIET ERROR_QUIET RESULT_VARIABLE is_foreign)
if(NOT status EQUAL 0 OR NOT is_foreign EQUAL 0) # no repository, or one around it that knows nothing of these files
  set(commit "unknown commit")
else()
  execute_process(COMMAND git -C ${SOURCE} diff --quiet HEAD -- RESULT_VARIABLE is_changed)
  if(NOT is_changed EQUAL 0)
    string(APPEND commit "+")
  endif()
endif()
file(CONFIGURE OUTPUT ${OUTPUT} CONTENT "// Made by linker/commit.cmake.
#include <manage/version.hpp>

namespace manage {
constinit std::string_view const commit = \"@commit@\";
} // namespace manage
" @ONLY)
