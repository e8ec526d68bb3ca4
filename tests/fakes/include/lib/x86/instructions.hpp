#pragma once
// The hosted stand-in for lib/x86_64's file of the same name: the same functions, played by fakes::Cpu.
