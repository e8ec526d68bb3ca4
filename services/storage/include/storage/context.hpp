// SPDX-License-Identifier: MIT
#pragma once
// What all devices of the service use together.
#include <storage/controllers.hpp>
#include <storage/host.hpp>
#include <storage/request_pool.hpp>
#include <storage/submit_order.hpp>

namespace storage {

struct Context {
    Host& host;
    Controllers* controllers; // null: there are none
    Controllers::Client& client;
    u64 now = 0;     // at the begin of the turn
    u64 waiting = 0; // bit N: device N may have something to do
    // Bit N: device N waits until a limit of rate allows what comes next; and when the first of them goes on.
    u64 held = 0, held_until = lib::service::no_deadline;
    RequestPool pool{};
    std::array<SubmitOrder, lib::service::max_controllers> orders{};

    block::Controller* controller(u32 number) { return controllers != nullptr ? controllers->find(number) : nullptr; }
    static u32 token(u16 request, bool is_bounced) { return request * 2U + (is_bounced ? 1 : 0); }
};

} // namespace storage
