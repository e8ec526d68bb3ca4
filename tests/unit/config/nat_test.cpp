// SPDX-License-Identifier: MIT
// Networks with a router.
#include "parsed.hpp"

namespace {

using namespace config;

constexpr lib::u32 ip(lib::u32 a, lib::u32 b, lib::u32 c, lib::u32 d) { return a << 24 | b << 16 | c << 8 | d; }

std::string vm(std::string const& name, std::string const& network) {
    return "[vm." + name + "]\nmemory = \"64M\"\nkernel = \"k\"\n[[vm." + name + ".nic]]\nnetwork = \"" + network +
           "\"\n";
}
// A network with a router, whose other keys begin in line 4, and a VM on it.
Parsed with_keys(std::string const& keys, std::string const& more = "") {
    return Parsed("[network.lan]\nmode = 'nat'\nuplink = 'first'\n" + keys + "\n" + vm("web", "lan") + more);
}

TEST(Nat, ARouterHasTheFirstAddressAndNicsThoseAfterIt) {
    Parsed const parsed("[network.out]\nuplink = 'pci:00:04.0'\n[network.lan]\nmode = 'nat'\nuplink = 'first'\n" +
                        vm("a", "lan") + vm("b", "out") + vm("c", "lan"));
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    NetworkDescription const& network = parsed.description.networks[1];
    EXPECT_EQ(network.mode, NetworkMode::Nat);
    EXPECT_EQ(parsed.description.networks[0].mode, NetworkMode::Bridge);
    EXPECT_EQ(network.nat.router(), ip(10, 77, 1, 1)) << "of network 1";
    EXPECT_EQ(network.nat.subnet.prefix_length, 24U);
    EXPECT_EQ(parsed.vm(0).nics[0].address, ip(10, 77, 1, 2));
    EXPECT_EQ(parsed.vm(1).nics[0].address, 0U);
    EXPECT_EQ(parsed.vm(2).nics[0].address, ip(10, 77, 1, 3));
    EXPECT_EQ(network.nat.outside.prefix_length, 0U) << "by DHCP";
}

TEST(Nat, AllKeysOfARouter) {
    Parsed const parsed =
        with_keys("subnet = \"192.168.5.64/26\"\naddress = '192.0.2.10/24'\ngateway = '192.0.2.1'\ndns = '9.9.9.9'\n"
                  "forward = [\n  'tcp 8080 -> web:80',\n  \"udp 53->web:5353\",\n  'tcp 53 -> db:53']",
                  vm("db", "lan"));
    EXPECT_EQ(parsed.messages(), std::vector<std::string>{});
    NatDescription const& nat = parsed.description.networks[0].nat;
    EXPECT_EQ(nat.router(), ip(192, 168, 5, 65));
    EXPECT_EQ(nat.outside.address, ip(192, 0, 2, 10));
    EXPECT_EQ(nat.gateway, ip(192, 0, 2, 1));
    EXPECT_EQ(nat.name_server, ip(9, 9, 9, 9));
    ASSERT_EQ(nat.forward_count, 3U);
    EXPECT_EQ(nat.forwards[0].protocol, ForwardProtocol::Tcp);
    EXPECT_EQ(nat.forwards[0].outside_port, 8080);
    EXPECT_EQ(nat.forwards[0].inside_port, 80);
    EXPECT_EQ(nat.forwards[0].address, ip(192, 168, 5, 66));
    EXPECT_EQ(nat.forwards[1].protocol, ForwardProtocol::Udp);
    EXPECT_EQ(nat.forwards[1].inside_port, 5353);
    EXPECT_EQ(nat.forwards[2].address, ip(192, 168, 5, 67));
}

TEST(Nat, MistakesInRouters) {
    struct Mistake {
        char const* keys;
        char const* message;
    };
    for (Mistake const& mistake : {
             Mistake{"subnet = '10.77.1.0'", "f:4: subnet: expected an IPv4 address and a length of 8 to 30, such as "
                                             "\"10.77.1.0/24\", found '10.77.1.0': correct it"},
             {"subnet = '10.77.1.0/31'", "f:4: subnet: expected an IPv4 address and a length of 8 to 30, such as "
                                         "\"10.77.1.0/24\", found '10.77.1.0/31': correct it"},
             {"subnet = '10.77.256.0/24'", "f:4: subnet: expected an IPv4 address and a length of 8 to 30, such as "
                                           "\"10.77.1.0/24\", found '10.77.256.0/24': correct it"},
             {"address = 5", "f:4: address: expected an IPv4 address and a length of 8 to 30, such as "
                             "\"10.77.1.2/24\", found 5: correct it"},
             {"dns = '224.0.0.1'",
              "f:4: dns: expected an IPv4 address such as \"192.0.2.1\", found '224.0.0.1': correct it"},
             {"gateway = '192.0.2.1'",
              "f:4: gateway: expected only with address = ..., found without: add it, or remove gateway"},
             {"address = '192.0.2.2/24'\ngateway = '192.0.3.1'",
              "f:5: gateway: expected another address in the network of address = ..., found none such: correct it"},
             {"address = '10.77.0.9/16'", "f:4: address: expected one outside of the subnet of the VMs, 10.77.0.0/24, "
                                          "found one inside: choose another subnet"},
             {"forward = 'tcp 80 -> web:80'", "f:4: forward: expected a list such as [\"tcp 8080 -> web:80\"], found "
                                              "'tcp 80 -> web:80': write it in brackets"},
             {"forward = ['tcp 0 -> web:80']", "f:4: forward: expected protocol and ports such as \"tcp 8080 -> "
                                               "web:80\", found 'tcp 0 -> web:80': correct it"},
             {"forward = ['icmp 1 -> web:80']", "f:4: forward: expected protocol and ports such as \"tcp 8080 -> "
                                                "web:80\", found 'icmp 1 -> web:80': correct it"},
             {"forward = ['tcp 1 -> web:80',\n'tcp 1 -> web:81']",
              "f:5: forward: expected another port than that of line 4, found tcp 1 twice: remove one"},
             {"forward = ['tcp 1 -> god:80']",
              "f:4: forward: expected the name of a VM, found \"god\": correct it, or add that"},
             {"mode = 'nat'", "f:4: mode: expected once, found also in line 2: remove one"},
         }) {
        Parsed const parsed = with_keys(mistake.keys);
        EXPECT_EQ(parsed.message(), mistake.message);
        EXPECT_TRUE(parsed.description.networks[0].is_refused) << mistake.keys;
        EXPECT_TRUE(parsed.vm().is_refused) << mistake.keys;
    }
}

TEST(Nat, AForwardNeedsANicOnTheNetwork) {
    EXPECT_EQ(with_keys("forward = ['tcp 1 -> b:1']", "[vm.b]\nmemory = \"64M\"\nkernel = \"k\"\n").message(),
              "f:4: forward: expected a VM with a NIC on network lan, found none of b: add a [[vm.NAME.nic]], or "
              "remove this");
}

TEST(Nat, ASubnetHasAnAddressForEachNic) {
    EXPECT_TRUE(with_keys("subnet = '10.0.0.0/30'").good);
    EXPECT_EQ(with_keys("subnet = '10.0.0.0/30'", vm("b", "lan")).message(),
              "f:4: subnet: expected an address for each NIC on the network, found too few: choose a shorter prefix");
}

TEST(Nat, ARouterNeedsAnUplinkAndItsKeysNeedARouter) {
    EXPECT_EQ(Parsed("[network.lan]\nmode = 'nat'\n" + vm("a", "lan")).message(),
              "f:2: mode: expected uplink = ... with \"nat\", found none: add it, or remove mode");
    EXPECT_EQ(Parsed("[network.lan]\nmode = 'routed'\n" + vm("a", "lan")).message(),
              "f:2: mode: \"routed\" is not supported yet: expected \"bridge\" or \"nat\": choose one");
    EXPECT_EQ(Parsed("[network.lan]\nmode = 'net'\n" + vm("a", "lan")).message(),
              "f:2: mode: expected \"bridge\" or \"nat\", found 'net': choose one");
    EXPECT_EQ(Parsed("[network.lan]\nmode = 'bridge'\nsubnet = '10.0.0.0/24'\n" + vm("a", "lan")).message(),
              "f:3: subnet: expected only with mode = \"nat\", found without: add that, or remove it");
}

TEST(Nat, NoNicHasTheAddressOfTheRouter) {
    EXPECT_EQ(with_keys("", "mac = '02:72:6f:75:74:00'").message(),
              "f:10: mac: expected another address than that of the network's router, found the same: write another");
}

} // namespace
