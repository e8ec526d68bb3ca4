// SPDX-License-Identifier: MIT
#include <check/file.hpp>

#include <cerrno>
#include <stdio.h>
#include <sys/stat.h>

namespace check {

bool File::read(char const* path) {
    constexpr std::size_t step = 1 << 20, most = std::size_t{4} << 30;
    FILE* const file = fopen(path, "rb");
    if (file == nullptr) return false;
    struct stat status{};
    if (fstat(fileno(file), &status) == 0 && S_ISDIR(status.st_mode)) {
        fclose(file);
        errno = EISDIR;
        return false;
    }
    for (std::size_t room = 0;;) {
        if (size_ == room) {
            room = room == 0 ? step : room * 2;
            auto* const larger = room > most ? nullptr : static_cast<u8*>(std::realloc(bytes_, room));
            if (larger == nullptr) {
                fclose(file);
                errno = EFBIG;
                return false;
            }
            bytes_ = larger;
        }
        std::size_t const got = fread(bytes_ + size_, 1, room - size_, file);
        size_ += got;
        if (got == 0) break;
    }
    bool const is_whole = ferror(file) == 0;
    fclose(file);
    if (!is_whole) errno = EIO;
    return is_whole;
}

} // namespace check
