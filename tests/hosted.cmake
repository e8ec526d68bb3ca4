# SPDX-License-Identifier: MIT
# The same folders as ordinary libraries on the build host: clang-19 with libc++, AddressSanitizer and
# UndefinedBehaviorSanitizer. tests/fakes stands where lib/x86_64 stands in the image: it plays the instructions.
add_library(mullion_platform INTERFACE)
target_include_directories(mullion_platform INTERFACE ${CMAKE_SOURCE_DIR}/tests/fakes/include)
target_compile_options(mullion_platform INTERFACE
  -stdlib=libc++ -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer -fno-strict-aliasing
  -D_LIBCPP_HARDENING_MODE=_LIBCPP_HARDENING_MODE_EXTENSIVE -DMULLION_DEBUG)
# For the fuzzers; not among the options above, which come last: test code is built without (tests/CMakeLists.txt).
add_compile_options(-fsanitize=fuzzer-no-link)
target_link_options(mullion_platform INTERFACE -stdlib=libc++ -fsanitize=address,undefined -fuse-ld=lld-19)
# What is pure assembly or runs only with the real instructions around it.
set(HOSTED_EXCLUDE "/hosted_excluded/")
