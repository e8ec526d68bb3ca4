// SPDX-License-Identifier: MIT
#include "parsed.hpp"

namespace {

using namespace config;

// One sound VM on the network `lan`, whose NIC's table begins in line 5.
Parsed with_nic(std::string const& lines) { return with("[network.lan]\n[[vm.a.nic]]\n" + lines); }

std::string vm(std::string const& name, std::string const& lines) {
    return "[vm." + name + "]\nmemory = \"64M\"\nkernel = \"k\"\n[[vm." + name + ".nic]]\n" + lines + "\n";
}

TEST(Networks, NicsFindTheirNetworkWhereverItStands) {
    Parsed const parsed =
        with("[[vm.a.nic]]\nnetwork = \"web\"\nmac = \"52:54:00:aB:0c:9f\"\n[network.lan]\n[network.web]\n"
             "[[vm.a.nic]]\nnetwork = 'lan'");
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    ASSERT_EQ(parsed.description.network_count, 2U);
    EXPECT_EQ(parsed.description.networks[1].name, "web");
    EXPECT_EQ(parsed.description.networks[1].line, 8U);
    auto const nics = parsed.vm().all_nics();
    ASSERT_EQ(nics.size(), 2U);
    EXPECT_EQ(nics[0].network, 1U);
    EXPECT_EQ(nics[0].network_name, "web");
    EXPECT_EQ(nics[0].mac, (MacAddress{0x52, 0x54, 0, 0xab, 0x0c, 0x9f}));
    EXPECT_EQ(nics[0].line, 4U);
    EXPECT_EQ(nics[1].network, 0U);
}

TEST(Networks, ANicWithoutAMacHasTheSameOneEachTime) {
    auto const macs = [](std::string const& name) {
        Parsed const parsed("[network.n]\n" + vm(name, "network = \"n\"\n[[vm." + name + ".nic]]\nnetwork = \"n\""));
        EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
        return std::array{parsed.vm().nics[0].mac, parsed.vm().nics[1].mac};
    };
    auto const a = macs("a"), b = macs("b");
    EXPECT_EQ(a, macs("a"));
    EXPECT_NE(a[0], a[1]);
    EXPECT_NE(a[0], b[0]);
    for (MacAddress const& mac : {a[0], a[1], b[0], b[1]})
        EXPECT_EQ(mac[0] & 3, 2) << "of one station, administered locally";
}

TEST(Networks, MistakesInNics) {
    struct Mistake {
        char const* lines;
        char const* message;
    };
    for (Mistake const& mistake :
         {Mistake{"", "f:5: [[vm.a.nic]]: expected network = ..., found none: add it"},
          {"network = 'wan'",
           "f:6: network: expected the name of a [network.NAME], found \"wan\": correct it, or add that"},
          {"network = 5", "f:6: network: expected the name of a [network.NAME], found 5: write \"NAME\""},
          {"network = ''", "f:6: network: expected the name of a [network.NAME], found '': write \"NAME\""},
          {"network = 'lan'\nnetwork = 'lan'", "f:7: network: expected once, found also in line 6: remove one"},
          {"network = 'lan'\nmac = 5",
           "f:7: mac: expected an address such as \"52:54:00:12:34:56\", found 5: correct it"},
          {"network = 'lan'\nmac = '52:54:00:12:34'",
           "f:7: mac: expected an address such as \"52:54:00:12:34:56\", found '52:54:00:12:34': correct it"},
          {"network = 'lan'\nmac = '52:54:00:12:34:5g'",
           "f:7: mac: expected an address such as \"52:54:00:12:34:56\", found '52:54:00:12:34:5g': correct it"},
          {"network = 'lan'\nmac = '53:54:00:12:34:56'",
           "f:7: mac: expected the address of one NIC (its first byte even, and not all 0), found "
           "'53:54:00:12:34:56': correct it"},
          {"network = 'lan'\nmac = '00:00:00:00:00:00'",
           "f:7: mac: expected the address of one NIC (its first byte even, and not all 0), found "
           "'00:00:00:00:00:00': correct it"},
          {"network = 'lan'\nrate = '1M'", "f:7: rate: not supported yet: expected no such line, found one: remove it"},
          {"network = 'lan'\nmak = 1", "f:7: mak: expected a known key of a NIC, found an unknown one: did you mean "
                                       "mac?"}}) {
        Parsed const parsed = with_nic(mistake.lines);
        EXPECT_EQ(parsed.message(), mistake.message);
        EXPECT_TRUE(parsed.vm().is_refused) << mistake.lines;
    }
    Parsed const three = with_nic("network = 'lan'\n[[vm.a.nic]]\nnetwork = 'lan'\n[[vm.a.nic]]\nnetwork = 5");
    EXPECT_EQ(three.message(), "f:9: [[vm.a.nic]]: expected at most 2 NICs, found more: remove some");
    EXPECT_TRUE(three.vm().is_refused);
}

TEST(Networks, MistakesInNetworksRefuseTheVmsOnThem) {
    std::string const text = "[network.lan]\nvlan = 5\n[network.web]\n";
    Parsed const parsed(text + vm("a", "network = 'lan'") + vm("b", "network = 'web'"));
    EXPECT_EQ(parsed.message(), "f:2: vlan: not supported yet: expected no such line, found one: remove it");
    EXPECT_TRUE(parsed.vm(0).is_refused) << "else it would be on a network without a way out";
    EXPECT_FALSE(parsed.vm(1).is_refused);
    EXPECT_EQ(with("[network.lan]\nx = 1").message(),
              "f:5: x: expected a known key of a network, found an unknown one: remove it");
    EXPECT_EQ(with("[network.lan]\n[network.lan]").message(),
              "f:5: [network.lan]: expected a new name, found the one of line 4: choose another name");
    EXPECT_EQ(with("[network]").message(),
              "f:4: [network.]: expected a name of 1 to 31 characters, found 0: write [network.NAME]");
    std::string many;
    for (int i = 0; i < 9; i++)
        many += "[network.n" + std::to_string(i) + "]\n";
    EXPECT_EQ(with(many).message(), "f:12: [network.n8]: expected at most 8 networks, found more: remove some");
}

TEST(Networks, AnUplinkIsTheFirstNicOrTheOneAtAPlace) {
    Parsed const parsed = with("[network.a]\nuplink = \"first\"\n[network.b]\nuplink = 'pci:3f:1e.7'\n"
                               "[network.c]\nuplink = 'pci:0001:00:03.0'\n[network.d]");
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    using Kind = UplinkDescription::Kind;
    auto const networks = parsed.description.all_networks();
    ASSERT_EQ(networks.size(), 4U);
    EXPECT_EQ(networks[0].uplink, (UplinkDescription{Kind::First}));
    EXPECT_EQ(networks[1].uplink, (UplinkDescription{Kind::Pci, 0, 0x3f, 0x1e, 7}));
    EXPECT_EQ(networks[1].uplink_text, "pci:3f:1e.7");
    EXPECT_EQ(networks[2].uplink, (UplinkDescription{Kind::Pci, 1, 0, 3, 0}));
    EXPECT_EQ(networks[3].uplink, UplinkDescription{});
}

TEST(Networks, MistakesInUplinks) {
    std::string const expected =
        "f:5: uplink: expected \"first\" or the place of a NIC such as \"pci:00:03.0\", found ";
    for (std::string const value : {"5", "''", "'eth0'", "'pci:'", "'pci:00:03'", "'pci:00:20.0'", "'pci:00:03.8'",
                                    "'pci:0:03.0'", "'pci:00:0g.0'", "'pci:00000:03.0'", "'52:54:00:12:34:56'"}) {
        Parsed const parsed = with("[network.lan]\nuplink = " + value);
        EXPECT_EQ(parsed.message(), expected + value + ": correct it");
        EXPECT_TRUE(parsed.description.networks[0].is_refused);
    }
    EXPECT_EQ(with("[network.lan]\nuplink = 'first'\nuplink = 'first'").message(),
              "f:6: uplink: expected once, found also in line 5: remove one");
    EXPECT_EQ(with("[network.a]\nuplink = 'pci:00:03.0'\n[network.b]\nuplink = 'pci:0000:00:03.0'").message(),
              "f:7: uplink: expected another NIC than that of the network in line 4, found the same: write another");
}

TEST(Networks, ANicIsRefusedWhoseAddressAnotherOnItsNetworkHas) {
    std::string const networks = "[network.lan]\n[network.web]\n", mac = "mac = '52:54:00:00:00:01'";
    Parsed const same(networks + vm("a", "network = 'lan'\n" + mac) + vm("b", "network = 'lan'\n" + mac));
    EXPECT_EQ(same.message(),
              "f:14: mac: expected another address than that of the NIC in line 6, on the same network, "
              "found the same: write another");
    EXPECT_FALSE(same.vm(0).is_refused);
    EXPECT_TRUE(same.vm(1).is_refused);
    EXPECT_TRUE(Parsed(networks + vm("a", "network = 'lan'\n" + mac) + vm("b", "network = 'web'\n" + mac)).good);
}

TEST(Networks, ANicComesAfterItsVm) {
    Parsed const parsed = with("[[vm.b.nic]]\nnetwork = 5\n[vm.b]\nmemory = \"64M\"\nkernel = \"k\"");
    EXPECT_EQ(parsed.message(), "f:4: [[vm.b.nic]]: expected after [vm.b], found none above it: move or add that");
    EXPECT_TRUE(parsed.vm(1).is_refused);
}

} // namespace
