// SPDX-License-Identifier: MIT
#pragma once
// Places that the linker script and the entry code name.
extern "C" {
extern char const image_start[], text_start[], text_end[], rodata_start[], rodata_end[], data_start[], data_end[],
    image_end[];
extern char boot_stack_guard[], boot_stack[], boot_stack_top[];
}
