// SPDX-License-Identifier: MIT
#pragma once
// Who a service works for: maps what it is to see of guests, and takes what it says of their devices.
#include <lib/result.hpp>
#include <lib/types.hpp>

namespace kernel {

class Service;

class ServiceHost {
public:
    // A new instance, before its first instruction: maps all that it is to see. In the run loop of CPU 0.
    virtual lib::Result<void> furnish(Service& instance) = 0;
    // What Services::ask_for_change() asked for: the instance waits and sees nothing of it; nullptr: none runs, and the
    // next one will be furnished. In the run loop of CPU 0.
    virtual void change(Service* instance) = 0;
    // System calls, on the CPU of the service, with interrupts off, and not while change() or furnish() runs. False:
    // there is no such device or queue. The numbers are hostile.
    virtual bool interrupt(lib::u64 device, lib::u64 queue) = 0;
    virtual bool misused(lib::u64 device) = 0;

protected:
    ~ServiceHost() = default;
};

} // namespace kernel
