# SPDX-License-Identifier: MIT
# Flags and image rules of the hypervisor proper. lib/freestanding comes first on the include path: it configures libc++'s
# headers for a machine without an operating system.
add_library(mullion_platform INTERFACE)
target_include_directories(mullion_platform SYSTEM INTERFACE
  ${CMAKE_SOURCE_DIR}/lib/freestanding /usr/lib/llvm-19/include/c++/v1)
target_include_directories(mullion_platform INTERFACE ${CMAKE_SOURCE_DIR}/lib/x86_64/include)
set(freestanding_flags
  --target=x86_64-linux-gnu -ffreestanding -fno-pic -fno-pie -mcmodel=kernel -mno-red-zone
  -mno-mmx -mno-sse -mno-sse2 -mno-avx -msoft-float -fno-stack-protector -fno-asynchronous-unwind-tables -fno-unwind-tables
  -fno-omit-frame-pointer -momit-leaf-frame-pointer -fno-strict-aliasing -ffunction-sections -fdata-sections
  -ffile-prefix-map=${CMAKE_SOURCE_DIR}/= -ftrivial-auto-var-init=zero)
set(freestanding_cxx_flags
  -nostdinc++ -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-use-cxa-atexit -fstrict-vtable-pointers
  -D_LIBCPP_HARDENING_MODE=_LIBCPP_HARDENING_MODE_FAST)
target_compile_options(mullion_platform INTERFACE ${freestanding_flags} "$<$<COMPILE_LANGUAGE:CXX>:${freestanding_cxx_flags}>")
# The exit path crosses folders; only the linker sees all of it.
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_options(mullion_platform INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-flto>")
  target_link_options(mullion_platform INTERFACE -flto -Wl,--lto-O2)
endif()
target_compile_options(mullion_warnings INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:-Wglobal-constructors;-Wframe-larger-than=4096>")
set(HOSTED_EXCLUDE "")

# mullion.elf: ELF64 for GRUB's multiboot2 command. The symbol table for backtraces is made from a first link and linked
# in by a second, so both links must lay out text alike (the table lives behind everything else).
function(add_hypervisor_image)
  file(GLOB boot_sources CONFIGURE_DEPENDS boot/*.cpp boot/*.S)
  find_file(CONSOLE_FONT Lat15-VGA16.psf.gz PATHS ${CMAKE_SOURCE_DIR}/.cache/font /usr/share/consolefonts
    NO_CMAKE_FIND_ROOT_PATH DOC "A PSF font, 8 pixels wide")
  if(NOT CONSOLE_FONT)
    message(FATAL_ERROR "There is no Lat15-VGA16.psf.gz: ./scripts/setup build fetches it, or name a font with -DCONSOLE_FONT=FILE")
  endif()
  set(font ${CMAKE_CURRENT_BINARY_DIR}/font.S)
  add_custom_command(OUTPUT ${font}
    COMMAND ${CMAKE_SOURCE_DIR}/scripts/make-font ${CONSOLE_FONT} ${font}
    DEPENDS ${CONSOLE_FONT} ${CMAKE_SOURCE_DIR}/scripts/make-font)
  list(APPEND boot_sources ${font})
  # The services are linked by themselves (services/service.cmake) and carried as files.
  set(services ${CMAKE_CURRENT_BINARY_DIR}/services)
  set_source_files_properties(boot/services.S PROPERTIES COMPILE_OPTIONS -I${services}
    OBJECT_DEPENDS "${services}/storage.elf;${services}/network.elf")
  add_library(boot_objects OBJECT ${boot_sources})
  target_include_directories(boot_objects PUBLIC boot/include)
  target_link_libraries(boot_objects PUBLIC lib kernel vm platform loader config drivers vmx svm manage boot_parsers mullion_platform PRIVATE mullion_warnings)

  set(script ${CMAKE_SOURCE_DIR}/linker/mullion.ld)
  set(link_flags -nostdlib -static -fuse-ld=lld-19 --target=x86_64-linux-gnu -Wl,-T,${script} -Wl,--gc-sections
    -Wl,-z,max-page-size=4096 -Wl,--build-id=none -Wl,--no-dynamic-linker -Wl,-z,noexecstack)
  add_executable(mullion_unsymbolised)
  add_executable(mullion_debug)
  set(symbols ${CMAKE_CURRENT_BINARY_DIR}/symbols.S)
  file(WRITE ${CMAKE_CURRENT_BINARY_DIR}/no_symbols.S
    ".section .symbols, \"a\"\n.globl symbol_table\nsymbol_table:\n.quad 0\n.section .note.GNU-stack,\"\",@progbits\n")
  target_sources(mullion_unsymbolised PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/no_symbols.S)
  target_sources(mullion_debug PRIVATE ${symbols})
  add_custom_command(OUTPUT ${symbols}
    COMMAND ${CMAKE_SOURCE_DIR}/scripts/make-symbols $<TARGET_FILE:mullion_unsymbolised> ${symbols}
    DEPENDS mullion_unsymbolised ${CMAKE_SOURCE_DIR}/scripts/make-symbols)
  foreach(image mullion_unsymbolised mullion_debug)
    target_link_libraries(${image} PRIVATE boot_objects lib kernel vm platform loader config drivers vmx svm manage boot_parsers mullion_platform)
    target_link_options(${image} PRIVATE ${link_flags})
    set_target_properties(${image} PROPERTIES SUFFIX .elf LINK_DEPENDS ${script})
  endforeach()
  # GRUB 2.06 loads every section of a file, debug information too, and corrupts its heap with so much of it; GRUB 2.12 refuses
  # a file without section headers. So the headers stay, and the sections that are not loaded by an address go.
  add_custom_command(OUTPUT ${CMAKE_CURRENT_BINARY_DIR}/mullion.elf
    COMMAND llvm-objcopy-19 --strip-all $<TARGET_FILE:mullion_debug> ${CMAKE_CURRENT_BINARY_DIR}/mullion.elf
    DEPENDS mullion_debug)
  add_custom_target(mullion ALL DEPENDS ${CMAKE_CURRENT_BINARY_DIR}/mullion.elf)
endfunction()
