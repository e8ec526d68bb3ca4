// SPDX-License-Identifier: MIT
#include <storage/submit_order.hpp>

namespace storage {

void SubmitOrder::want(u32 queue) {
    u64 const bit = u64{1} << queue;
    if ((present_ & bit) != 0) return;
    present_ |= bit;
    waiting_.add(queue);
}

void SubmitOrder::settle(Outcome outcome) {
    if (outcome == Outcome::Refused) return; // it is still its turn
    List& list = turn() == &waiting_ ? waiting_ : waiting_for_bounce_;
    u32 const queue = list.first();
    list.remove_first();
    if (outcome == Outcome::NeedsBounce) return waiting_for_bounce_.add(queue);
    present_ &= ~(u64{1} << queue);
    if (outcome == Outcome::Bounced) is_bounce_taken_ = true;
    if (outcome != Outcome::Nothing) want(queue);
}

} // namespace storage
