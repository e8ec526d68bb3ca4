// SPDX-License-Identifier: MIT
// What libc++'s headers expect of its library: the end of functions that would throw where there are exceptions.
#include <lib/assert.hpp>
#include <string_view>

#if !__STDC_HOSTED__ || defined(MULLION_TOOLS)
_LIBCPP_BEGIN_NAMESPACE_STD
void __libcpp_verbose_abort(char const* format, ...) { lib::assertion_failed(format, "libc++", 0); }
_LIBCPP_END_NAMESPACE_STD
#endif
