// Package metasync owns when a path must be looked at in its storage, and the
// commands that make the replicated state agree with what the storage said. It
// never decides which interval applies to a path, never changes a storage, and
// publishes nothing: a difference that it finds is this cluster's business only.
//
// # Freshness
//
// A fact (an entry, a listing, that a path does not exist) is served if
//
//   - the later of the index at which it was loaded, which is part of the
//     replicated state, and the index at which its last validation began, which
//     the leader of the term keeps in memory, is at least the newest mark that
//     covers it;
//   - no effect that may still land can change it;
//   - its validation is younger than the sync interval. An age counts from the
//     start of the look, on a clock that does not go back. A fact that was
//     loaded in an earlier term has no known age: under "never" it is served,
//     under a duration it is looked at. Under "always" the look must have begun
//     after the call.
//
// # Looks
//
// A path is looked at once at a time, see flights. A reader may share a look
// that is running only if nothing was marked since it began, and if it began no
// earlier than the reader's call minus the age that the interval allows: else a
// strict reader would get what another reader asked for before it (C27).
//
// The applied index is read before the storage is asked. What comes back is
// compared with what is held. If it is the same, the validation is recorded in
// memory and nothing enters the log. If it differs, a load is proposed with that
// index; the state refuses it if something newer covers the path (C4). Who waited
// for a refused load may still have its answer, which was true while they waited,
// but it leaves nothing behind: no file ID, no blocks.
//
// A validation is of what the state held when it was recorded. A reader that had
// read the state before takes it for nothing: what it has read may be an older
// version (see call.seen).
//
// A look that finds nothing where nothing is held leaves no trace in the log. It
// is remembered here, within bounds, and judged like all else: what a mark covers,
// the state also knows of paths that are not held (namespace.Lookup.Need).
//
// The completion of an own operation is a validation too, see Effects. What
// readers will probably ask for next is asked for by ordinary looks of a lower
// class, see PrefetchOptions; it changes when the storage is asked, never what
// may be served.
//
// An error of the storage is an error of the caller. It is never an absence, and
// never a validation.
//
// # Slots
//
// Every question to a storage, one entry or one page of a listing, takes a slot of
// the mount and in all, see Slots. Readers come before prefetches before the
// background, and a look that a reader joins rises to the reader's class. Who
// holds a slot waits for the storage and for nothing else.
//
// # Syncs
//
// A sync of a tree is one call, see walk: what was looked at since it began, for
// whomever, is not looked at again. It goes breadth first until it holds so many
// directories that it must go depth first, and reads what is below a directory
// from the state, a page at a time, after the directory's listing was made to
// agree. A storage that lists a tree as cheaply as a directory is asked for trees,
// see flat. It holds no lock, slot or log entry from one look to the next.
package metasync
