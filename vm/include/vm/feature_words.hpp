// SPDX-License-Identifier: MIT
#pragma once
// An option that lists optional features to leave alone: vmx-disable= and svm-disable=.
#include <algorithm>
#include <array>
#include <string_view>

namespace vm {

template <typename Flags> struct FeatureWord {
    std::string_view name;
    bool Flags::* flag;
};

// Sets the flags of comma-separated words, of all for the word "all". False at an unknown one.
template <typename Flags> bool set_features(Flags& flags, auto const& words, std::string_view text) {
    while (!text.empty()) {
        auto const comma = std::min(text.find(','), text.size());
        auto const word = text.substr(0, comma);
        text.remove_prefix(std::min(comma + 1, text.size()));
        bool found = false;
        for (FeatureWord<Flags> const& known : words) {
            if (known.name != word && word != "all") continue;
            flags.*known.flag = true;
            found = true;
        }
        if (!found) return false;
    }
    return true;
}

// All words with commas in between, and "all".
template <auto const& words>
constexpr auto feature_text = [] {
    static constexpr std::string_view last = "all", comma = ", ";
    constexpr auto length = [] {
        std::size_t sum = last.size();
        for (auto const& word : words)
            sum += word.name.size() + comma.size();
        return sum;
    }();
    std::array<char, length> text{};
    auto* at = text.begin();
    for (auto const& word : words) {
        at = std::ranges::copy(word.name, at).out;
        at = std::ranges::copy(comma, at).out;
    }
    std::ranges::copy(last, at);
    return text;
}();

} // namespace vm
