# SPDX-License-Identifier: MIT
# Services: programs in ring 3, each linked by itself, with the runtime that they share.
# mullion_service(NAME FOLDER [USES LIBRARY...]): <build>/services/NAME.elf of all sources in FOLDER and of these libraries,
# and NAME_debug.elf for its symbols.
function(mullion_service name folder)
  cmake_parse_arguments(S "" "" "USES" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cpp ${folder}/*.S)
  set(script ${CMAKE_SOURCE_DIR}/services/runtime/service.ld)
  set(output ${CMAKE_BINARY_DIR}/services)
  add_executable(service_${name} ${sources})
  target_link_libraries(service_${name} PRIVATE ${S_USES} runtime lib mullion_platform PRIVATE mullion_warnings)
  target_link_options(service_${name} PRIVATE -nostdlib -static -fuse-ld=lld-19 --target=x86_64-linux-gnu -Wl,-T,${script}
    -Wl,--gc-sections -Wl,-z,max-page-size=4096 -Wl,--build-id=none -Wl,--no-dynamic-linker -Wl,-z,noexecstack)
  set_target_properties(service_${name} PROPERTIES OUTPUT_NAME ${name}_debug SUFFIX .elf LINK_DEPENDS ${script}
    RUNTIME_OUTPUT_DIRECTORY ${output})
  add_custom_command(OUTPUT ${output}/${name}.elf
    COMMAND llvm-objcopy-19 --strip-all $<TARGET_FILE:service_${name}> ${output}/${name}.elf DEPENDS service_${name})
  add_custom_target(service_file_${name} ALL DEPENDS ${output}/${name}.elf)
endfunction()
