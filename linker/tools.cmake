# SPDX-License-Identifier: MIT
# Programs for the administrator's Linux, built from the hypervisor's own parsers: libc++'s headers as the hypervisor has them,
# on top of the C library alone, so that one file runs on every Linux.
add_library(mullion_platform INTERFACE)
target_include_directories(mullion_platform SYSTEM INTERFACE ${CMAKE_SOURCE_DIR}/lib/freestanding /usr/lib/llvm-19/include/c++/v1)
target_compile_options(mullion_platform INTERFACE -nostdinc++ -fno-exceptions -fno-rtti -fno-strict-aliasing -fno-threadsafe-statics
  -ffunction-sections -fdata-sections -ffile-prefix-map=${CMAKE_SOURCE_DIR}/=
  -D_LIBCPP_HARDENING_MODE=_LIBCPP_HARDENING_MODE_FAST -DMULLION_TOOLS)
target_link_options(mullion_platform INTERFACE -nostdlib++ -static -fuse-ld=lld-19 -Wl,--gc-sections -Wl,--build-id=none)
