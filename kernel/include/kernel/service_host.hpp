// SPDX-License-Identifier: MIT
#pragma once
// Who a service works for: maps what it is to see of guests, and takes what it says of their devices.
#include <lib/result.hpp>
#include <lib/service_abi.hpp>
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
    // An instance has ended: nothing of it runs any more, and nothing that it began may go on to write to memory. In
    // the run loop of CPU 0.
    virtual void ended() = 0;
    // A system call about devices, on the CPU of the service, with interrupts off, and not while change() or furnish()
    // runs. Returns what the service gets. The arguments are hostile.
    virtual lib::u64 call(lib::service::Call number, lib::u64 first, lib::u64 second) = 0;

protected:
    ~ServiceHost() = default;
};

} // namespace kernel
