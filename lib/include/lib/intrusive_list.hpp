// SPDX-License-Identifier: MIT
#pragma once
// A doubly linked list whose links live in the elements, so that insertion never allocates.

namespace lib {

template <typename T, typename Tag = void> class ListLink {
public:
    constexpr ListLink() = default;
    ListLink(ListLink const&) = delete;
    ListLink& operator=(ListLink const&) = delete;
    bool is_linked() const { return next_ != nullptr; }

private:
    template <typename, typename> friend class IntrusiveList;
    ListLink* next_ = nullptr;
    ListLink* previous_ = nullptr;
};

// T derives from ListLink<T, Tag>. The list owns nothing; an element is on at most one list per tag.
template <typename T, typename Tag = void> class IntrusiveList {
    using Link = ListLink<T, Tag>;

public:
    constexpr IntrusiveList() { head_.next_ = head_.previous_ = &head_; }
    IntrusiveList(IntrusiveList const&) = delete;
    IntrusiveList& operator=(IntrusiveList const&) = delete;

    bool is_empty() const { return head_.next_ == &head_; }
    T* front() { return is_empty() ? nullptr : element(head_.next_); }
    T* back() { return is_empty() ? nullptr : element(head_.previous_); }
    T* next(T& item) {
        Link* const link = static_cast<Link&>(item).next_;
        return link == &head_ ? nullptr : element(link);
    }
    T* previous(T& item) {
        Link* const link = static_cast<Link&>(item).previous_;
        return link == &head_ ? nullptr : element(link);
    }
    // For range-for; the body must not take anything out.
    class Iterator {
    public:
        explicit Iterator(Link* link) : link_(link) {}
        T& operator*() const { return *element(link_); }
        Iterator& operator++() {
            link_ = link_->next_;
            return *this;
        }
        bool operator==(Iterator const&) const = default;

    private:
        friend class IntrusiveList;
        Link* link_;
    };
    // At the end: behind all.
    void insert_before(Iterator position, T& item) { insert(*position.link_->previous_, item); }
    Iterator begin() { return Iterator(head_.next_); }
    Iterator end() { return Iterator(&head_); }
    void push_back(T& item) { insert(*head_.previous_, item); }
    void push_front(T& item) { insert(head_, item); }
    void insert_before(T& position, T& item) { insert(*static_cast<Link&>(position).previous_, item); }
    void insert_after(T& position, T& item) { insert(static_cast<Link&>(position), item); }
    static void remove(T& item) {
        Link& link = item;
        link.previous_->next_ = link.next_;
        link.next_->previous_ = link.previous_;
        link.next_ = link.previous_ = nullptr;
    }
    T* pop_front() {
        T* const item = front();
        if (item != nullptr) remove(*item);
        return item;
    }

private:
    static T* element(Link* link) { return &static_cast<T&>(*link); } // never null: a pointer's cast would ask
    static void insert(Link& after, T& item) {
        Link& link = item;
        link.previous_ = &after;
        link.next_ = after.next_;
        after.next_->previous_ = &link;
        after.next_ = &link;
    }
    Link head_;
};

} // namespace lib
