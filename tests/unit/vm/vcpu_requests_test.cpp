// SPDX-License-Identifier: MIT
// Requests to a vCPU from other CPUs, and what must not be lost while it handles some.
#include "vm/fake_vcpu.hpp"

namespace {

using fake::u32;
using vm::Activity;
namespace request = vm::request;

class Requests : public fake::VmTest {
protected:
    Requests() : VmTest(2) {}
    fake::Vcpu& ap() { return static_cast<fake::Vcpu&>(vm->vcpu(1)); }
    // The code segment that a SIPI with this vector gives.
    bool is_started_at(fake::u8 vector) {
        return ap().activity() == Activity::Running && ap().segment(vm::SegmentName::Cs).base == fake::u64{vector}
                                                                                                     << 12;
    }
};

TEST_F(Requests, InitThenStartup) {
    ap().signal_init();
    ap().signal_startup(9);
    EXPECT_EQ(ap().take_requests() & request::handled, 0U);
    EXPECT_TRUE(is_started_at(9));
}

TEST_F(Requests, ThoseThatComeMeanwhileStayForTheNextLook) {
    ap().signal_init();
    ap().on_segment = [&] {
        ap().on_segment = {};
        ap().signal_startup(7); // from another CPU, while this one handles INIT
        ap().post(request::nmi | request::flush_tlb);
    };
    u32 const now = ap().take_requests();
    EXPECT_EQ(now & request::handled, 0U);
    EXPECT_NE(now & request::flush_tlb, 0U);
    EXPECT_EQ(ap().activity(), Activity::WaitForSipi);
    EXPECT_EQ(ap().requests(), request::sipi | request::nmi);
    EXPECT_TRUE(ap().has_wake_event());
    ap().take_requests();
    EXPECT_TRUE(is_started_at(7));
    EXPECT_EQ(ap().requests(), 0U);
}

TEST_F(Requests, AStartupFromBeforeAnInitIsVoid) {
    ap().take_requests();
    ap().signal_startup(5);
    ap().signal_init();
    ap().take_requests();
    EXPECT_EQ(ap().activity(), Activity::WaitForSipi);
}

} // namespace
