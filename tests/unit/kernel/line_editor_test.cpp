// SPDX-License-Identifier: MIT
#include <kernel/line_editor.hpp>

#include <gtest/gtest.h>
#include <string>
#include <utility>
#include <vector>

namespace {

using kernel::LineEditor;

// A terminal of 80 columns that knows exactly what the editor may send; anything else fails the test.
class Terminal final : public lib::TextSink {
public:
    std::vector<std::string> rows{""};
    std::size_t column = 0;
    unsigned bells = 0;

    void write(std::string_view text) override {
        for (char const c : text)
            if (!sequence_.empty())
                continue_sequence(c);
            else if (c == '\x1b')
                sequence_ = c;
            else
                one(c);
    }
    std::string row() const {
        auto const end = rows.back().find_last_not_of(' ');
        return end == std::string::npos ? "" : rows.back().substr(0, end + 1);
    }

private:
    void one(char c) {
        if (c == '\n') {
            rows.emplace_back();
            column = 0;
        } else if (c == '\r') {
            column = 0;
        } else if (c == '\a') {
            bells++;
        } else {
            ASSERT_TRUE(c >= ' ' && c <= '~') << int{c};
            if (rows.back().size() <= column) rows.back().resize(column + 1, ' ');
            rows.back()[column++] = c;
            ASSERT_LT(column, 80U) << "the last column is not safe";
        }
    }
    void continue_sequence(char c) {
        sequence_ += c;
        if (c == '[' || (c >= '0' && c <= '9')) return;
        std::string const whole = std::exchange(sequence_, "");
        if (whole == "\x1b[K") {
            rows.back().resize(std::min(rows.back().size(), column));
        } else if (c == 'D') {
            std::size_t const count = std::stoul(whole.substr(2));
            EXPECT_LE(count, column);
            column -= count;
        } else if (whole == "\x1b[2J") {
            rows.assign(1, "");
        } else if (whole == "\x1b[H") {
            column = 0;
        } else {
            ADD_FAILURE() << "ESC" << whole.substr(1);
        }
    }
    std::string sequence_; // what has come of one
};

class LineEditing : public testing::Test {
protected:
    LineEditing() { editor.begin(); }
    bool type(std::string_view keys) {
        bool done = false;
        for (char const c : keys) {
            done = editor.put(static_cast<lib::u8>(c));
            check();
        }
        return done;
    }
    std::string enter(std::string_view keys) {
        EXPECT_TRUE(type(std::string(keys) + "\r"));
        std::string const line(editor.line());
        editor.begin();
        return line;
    }
    // What the terminal shows is what the editor holds; the cursor stands where the next byte goes.
    void check() {
        if (terminal.row().empty()) return; // just finished
        auto const shown = terminal.rows.back().substr(2);
        auto const at = editor.line().find(shown);
        ASSERT_NE(at, std::string_view::npos) << shown;
        if (editor.line().size() < 70) {
            EXPECT_EQ(shown, editor.line());
            EXPECT_EQ(terminal.column, editor.cursor() + 2);
        }
    }
    Terminal terminal;
    LineEditor editor{"> ", terminal};
};

TEST_F(LineEditing, GivesALine) {
    EXPECT_FALSE(type("vm list"));
    EXPECT_EQ(terminal.row(), "> vm list");
    EXPECT_EQ(enter(""), "vm list");
    EXPECT_EQ(terminal.row(), ">");
}

TEST_F(LineEditing, EndsALineOnceForCarriageReturnAndLineFeed) {
    EXPECT_TRUE(type("a\r"));
    editor.begin();
    EXPECT_FALSE(type("\n"));
    EXPECT_TRUE(type("b\n"));
    EXPECT_EQ(editor.line(), "b");
    editor.begin();
    EXPECT_TRUE(type("\n"));
}

TEST_F(LineEditing, ErasesBeforeTheCursor) {
    EXPECT_EQ(enter("abc\x7f\b"), "a");
    type("\x7f");
    EXPECT_EQ(terminal.bells, 1U);
}

TEST_F(LineEditing, InsertsInTheMiddle) { EXPECT_EQ(enter("ad\x1b[Dbc"), "abcd"); }

TEST_F(LineEditing, MovesByArrowsHomeAndEnd) {
    EXPECT_EQ(enter("bc\x1b[Ha\x1b[Fd\x1b[D\x1b[D\x1b[D\x1b[C-"), "ab-cd");
    EXPECT_EQ(enter("b\x1bOHa\x1bOFc\x1bOD.\x1bOC!"), "ab.c!");
    EXPECT_EQ(enter("b\x1b[1~a\x1b[4~c\x1b[7~0\x1b[8~9"), "0abc9");
    EXPECT_EQ(enter("b\x01"
                    "a\x05"
                    "c"),
              "abc");
}

TEST_F(LineEditing, StopsAtBothEnds) {
    EXPECT_EQ(enter("a\x1b[C\x1b[D\x1b[D\x1b[Db"), "ba");
    EXPECT_EQ(terminal.bells, 3U);
}

TEST_F(LineEditing, DeletesUnderTheCursor) {
    EXPECT_EQ(enter("abc\x1b[D\x1b[D\x1b[3~"), "ac");
    EXPECT_EQ(terminal.bells, 0U);
    EXPECT_EQ(enter("ab\x1b[3~"), "ab");
    EXPECT_EQ(terminal.bells, 1U);
}

TEST_F(LineEditing, KillsToTheStartToTheEndAndAWord) {
    EXPECT_EQ(enter("abcd\x1b[D\x1b[D\x15"), "cd");
    EXPECT_EQ(enter("abcd\x1b[D\x1b[D\x0b"), "ab");
    EXPECT_EQ(enter("vm start  linux \x17\x17x"), "vm x");
    EXPECT_EQ(enter("a b\x1b[D\x17"
                    "c"),
              "cb");
    EXPECT_EQ(enter("\x15\x0b\x17z"), "z");
}

TEST_F(LineEditing, ControlCGivesANewLine) {
    type("some\x1b[D\x03");
    EXPECT_EQ(terminal.rows.size(), 2U);
    EXPECT_TRUE(terminal.rows[0].starts_with("> som^C"));
    EXPECT_EQ(enter("x"), "x");
    type("\x1b[A");
    EXPECT_EQ(editor.line(), "x") << "what was cleared is not remembered";
}

TEST_F(LineEditing, ControlLDrawsOnAnEmptyScreen) {
    type("ab\x1b[D\x0c");
    EXPECT_EQ(terminal.rows, std::vector<std::string>{"> ab"});
    EXPECT_EQ(terminal.column, 3U);
}

TEST_F(LineEditing, GoesThroughTheHistory) {
    enter("one");
    enter("two");
    type("thr\x1b[A");
    EXPECT_EQ(editor.line(), "two");
    type("\x1b[A\x1b[A");
    EXPECT_EQ(editor.line(), "one");
    EXPECT_EQ(terminal.bells, 1U);
    type("\x1b[B\x1b[B");
    EXPECT_EQ(editor.line(), "thr");
    type("\x1b[B");
    EXPECT_EQ(terminal.bells, 2U);
    EXPECT_EQ(enter("\x1b[A\x1b[A!"), "one!") << "an edited old line is a new one";
    type("\x10\x10\x10\x0e");
    EXPECT_EQ(editor.line(), "two");
}

TEST_F(LineEditing, RemembersNeitherEmptyLinesNorTheSameTwice) {
    enter("a");
    enter("");
    enter("a");
    type("\x1b[A\x1b[A");
    EXPECT_EQ(editor.line(), "a");
    EXPECT_EQ(terminal.bells, 1U);
}

TEST_F(LineEditing, ForgetsTheOldestOfSeventeen) {
    for (char c = 'a'; c <= 'q'; c++)
        enter(std::string(1, c));
    for (int i = 0; i < 20; i++)
        type("\x1b[A");
    EXPECT_EQ(editor.line(), "b");
    EXPECT_EQ(terminal.bells, 4U);
}

TEST_F(LineEditing, RingsWhenFull) {
    std::string const full(LineEditor::capacity, 'x');
    type(full + "yz");
    EXPECT_EQ(terminal.bells, 2U);
    EXPECT_EQ(editor.line(), full);
    EXPECT_TRUE(type("\r"));
}

TEST_F(LineEditing, ScrollsLongLines) {
    std::string long_line;
    for (unsigned i = 0; i < 150; i++)
        long_line += static_cast<char>('!' + i % 90);
    type(long_line);
    EXPECT_TRUE(terminal.row().ends_with(long_line.substr(100)));
    type("\x1b[H");
    EXPECT_EQ(terminal.row(), "> " + long_line.substr(0, 77));
    EXPECT_EQ(terminal.column, 2U);
    for (int i = 0; i < 100; i++)
        type("\x1b[C");
    EXPECT_EQ(editor.cursor(), 100U);
    type("\x7f");
    EXPECT_EQ(enter(""), long_line.substr(0, 99) + long_line.substr(100));
}

TEST_F(LineEditing, IgnoresUnknownSequencesAndBytes) {
    EXPECT_EQ(enter("a\x1b[5~\x1b[1;5Q\x1b[?25h\x1bx\x1bOP"
                    "b"),
              "ab");
    EXPECT_EQ(terminal.bells, 0U);
    EXPECT_EQ(enter("a\xc3\xa4"
                    "b\x7f"
                    "b"),
              "ab");
    EXPECT_EQ(terminal.bells, 2U);
    EXPECT_EQ(enter(std::string("a\0b", 3)), "ab");
    EXPECT_EQ(enter("x\x1b[99999999999999999999~y"), "xy");
}

TEST_F(LineEditing, SurvivesAnyBytes) {
    lib::u32 seed = 1;
    for (int i = 0; i < 100'000; i++) {
        seed = seed * 1664525 + 1013904223;
        // Escapes and keys that mean something come often.
        constexpr std::string_view keys = "\x1b\x1b[[OABCDHF~1347;\x7f\b\t\r\x03\x0c\x15\x0b\x17 ";
        lib::u32 const pick = seed >> 16;
        auto const byte =
            (seed >> 8 & 3) == 0 ? static_cast<lib::u8>(keys[pick % keys.size()]) : static_cast<lib::u8>(pick);
        if (editor.put(byte)) editor.begin();
        ASSERT_LE(editor.cursor(), editor.line().size());
        ASSERT_LE(editor.line().size(), LineEditor::capacity);
        if (terminal.rows.size() > 100) terminal.rows.erase(terminal.rows.begin(), terminal.rows.end() - 1);
    }
}

class Completing : public LineEditing {
protected:
    Completing() { editor.set_completer(LineEditor::Completer::to<&Completing::offer>(*this)); }
    void offer(std::string_view before, kernel::Completions& completions) {
        asked = before;
        if (before.empty())
            for (auto const* const word : {"vm", "version", "vet"})
                completions.offer(word);
        if (before == "vm ")
            for (auto const* const word : {"start", "stop"})
                completions.offer(word);
    }
    std::string asked;
};

TEST_F(Completing, AddsTheOnlyCandidateAndASpace) {
    EXPECT_EQ(enter("vers\t"), "version ");
    EXPECT_EQ(enter("vm\t"), "vm ");
    EXPECT_EQ(enter("vers x\x1b[D\x1b[D\t"), "version x");
}

TEST_F(Completing, AddsWhatAllHaveInCommon) {
    type("vm s\t");
    EXPECT_EQ(asked, "vm ");
    EXPECT_EQ(editor.line(), "vm st");
    EXPECT_EQ(terminal.rows.size(), 1U);
}

TEST_F(Completing, ListsCandidatesThatDiffer) {
    type("v\t");
    EXPECT_EQ(terminal.rows[1], "vm  version  vet");
    EXPECT_EQ(terminal.rows[2], "> v");
    type("e\t");
    EXPECT_EQ(terminal.rows[3], "version  vet");
}

TEST_F(Completing, RingsWhenThereIsNothing) {
    type("zz\t");
    EXPECT_EQ(terminal.bells, 1U);
    type("\x15vm stop \t");
    EXPECT_EQ(terminal.bells, 2U);
    EXPECT_EQ(editor.line(), "vm stop ");
}

} // namespace
