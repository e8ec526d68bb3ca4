// SPDX-License-Identifier: MIT
#pragma once
// The order in which queues give commands to one controller: each in its turn one, whatever the others have. The
// same holds for its bounce memory, which one command at a time has.
#include <array>
#include <storage/request_pool.hpp>

namespace storage {

class SubmitOrder {
public:
    // What became of a queue's turn.
    enum class Outcome : u8 {
        Nothing,     // it has no command any more
        Submitted,   //
        Bounced,     // the same, with the bounce memory
        NeedsBounce, // the next command of it does, and somebody has it
        Refused,     // the controller takes nothing at the moment
    };

    // Puts a queue at the end, unless it waits already.
    void want(u32 queue);
    bool is_empty() const { return turn() == nullptr; }
    u32 first() const { return turn()->first(); } // unless is_empty()
    bool is_bounce_free() const { return !is_bounce_taken_; }
    void settle(Outcome outcome); // of the turn of first()
    void bounce_ended() { is_bounce_taken_ = false; }

private:
    class List {
    public:
        bool is_empty() const { return count_ == 0; }
        u32 first() const { return queues_[begin_]; }
        void add(u32 queue) { queues_[(begin_ + count_++) % queues_.size()] = static_cast<u8>(queue); }
        void remove_first() {
            begin_ = (begin_ + 1) % queues_.size();
            count_--;
        }

    private:
        std::array<u8, RequestPool::max_queues> queues_{};
        u32 begin_ = 0, count_ = 0;
    };
    // The list whose first queue it is.
    List const* turn() const {
        if (!is_bounce_taken_ && !waiting_for_bounce_.is_empty()) return &waiting_for_bounce_;
        return waiting_.is_empty() ? nullptr : &waiting_;
    }

    List waiting_, waiting_for_bounce_; // a queue is in one of them at most
    u64 present_ = 0;                   // the queues of both
    bool is_bounce_taken_ = false;
};

} // namespace storage
