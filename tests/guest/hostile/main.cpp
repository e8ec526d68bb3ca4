#include "runtime/runtime.hpp"
void guest_main() { guest::print("guest: hello {}\n", guest::command_line()); }
