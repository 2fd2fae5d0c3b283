package sim_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
)

// outcome is what a client knows of an operation.
type outcome uint8

const (
	running outcome = iota
	acked           // it was done
	refused         // it was not, and never will be
	unknown         // nobody said
)

// attempt is one change that a client asked for.
type attempt struct {
	site      *site
	op        freshet.OpID
	what      string
	key, key2 string
	tree      bool // everything below too
	version   int  // of a write
	write     freshet.WriteType
	replicas  int // that were asked for
	began     time.Time
	ended     time.Time
	outcome   outcome

	// Of a write that stays on nodes.
	file   freshet.FileID // once it has a ticket
	blocks int            // once the leader was asked to complete it
	held   []*disk        // that had all blocks then
}

func (a *attempt) covers(key string) bool {
	for _, k := range []string{a.key, a.key2} {
		if k != "" && (k == key || (a.tree && covers(k, key))) {
			return true
		}
	}
	return false
}

// denied reports whether the client was told, by a cluster that must know, that nothing was
// or ever will be done. A cluster that was made anew in the middle of an attempt knows nothing
// of it, and says that it does not exist.
func (a *attempt) denied() bool {
	return a.outcome == refused && !(a.site.rebuilt.After(a.began) && a.site.rebuilt.Before(a.ended))
}

// history is what clients did and were told.
type history struct {
	w *world

	mu       sync.Mutex
	attempts []*attempt
	contents map[int]int                    // length by version
	sites    map[int]*site                  // by version
	seen     map[*site]map[string]time.Time // since when what a key holds was acknowledged here
	reads    int
	byOp     map[freshet.OpID]*attempt
	quiets   []time.Time                     // when nothing was on its way
	index    map[*site]map[string][]*attempt // of those that move versions, by key
}

func (h *history) init(w *world) {
	h.w, h.contents, h.sites, h.seen = w, map[int]int{}, map[int]*site{}, map[*site]map[string]time.Time{}
	h.byOp = map[freshet.OpID]*attempt{}
}

// contentOf returns the bytes of a version: a head that names it and a body that
// no other version has.
func contentOf(version, length int) []byte {
	head := fmt.Sprintf("version %08d of %08d bytes\n", version, length)
	data := make([]byte, max(length, len(head)))
	var seed [32]byte
	seed[0], seed[1], seed[2] = byte(version), byte(version>>8), byte(version>>16)
	_, _ = rand.NewChaCha8(seed).Read(data)
	copy(data, head)
	return data
}

// versionOf returns the version that the head of a content names, -1 if it is none
// of ours.
func versionOf(data []byte) int {
	var v, n int
	if _, err := fmt.Sscanf(string(data[:min(len(data), 40)]), "version %d of %d bytes", &v, &n); err != nil || n != len(data) {
		return -1
	}
	return v
}

// newVersion makes a content.
func (h *history) newVersion(s *site, length int) (int, []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := len(h.contents) + 1
	data := contentOf(v, length)
	h.contents[v], h.sites[v] = len(data), s
	return v, data
}

// length returns the length of a version.
func (h *history) length(v int) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return int64(h.contents[v])
}

// whole says what is wrong with bytes that were read, "" if they are one version.
func (h *history) whole(data []byte) (int, string) {
	v := versionOf(data)
	if v <= 0 || h.length(v) != int64(len(data)) {
		return v, fmt.Sprintf("%d bytes that begin with %.40q are no version", len(data), data)
	}
	if want := contentOf(v, len(data)); !bytes.Equal(want, data) {
		for i := range data {
			if data[i] != want[i] {
				return v, fmt.Sprintf("bytes from %d on are not of version %d, with which they begin", i, v)
			}
		}
	}
	return v, ""
}

// begin notes that a client asks for a change.
func (h *history) begin(a *attempt) {
	h.mu.Lock()
	defer h.mu.Unlock()
	a.began = time.Now()
	h.attempts, h.byOp[a.op] = append(h.attempts, a), a
	h.indexed(a)
}

// end notes what the client was told. What was acknowledged is, from the moment of
// its effect on, what the site must show.
func (h *history) end(a *attempt, o outcome, err error) {
	h.w.story.addAbout(a.key, "%s: %s %s%s → %s (%v)", a.site.name, a.what, a.key, arrow(a), words[o], err)
	if a.key2 != "" {
		h.w.story.addAbout(a.key2, "%s: %s %s%s → %s", a.site.name, a.what, a.key, arrow(a), words[o])
	}
	h.mu.Lock()
	a.ended, a.outcome = time.Now(), o
	h.mu.Unlock()
	if o != acked || a.kept() {
		return
	}
	if a.version > 0 {
		at, ok := h.w.bucket.changed(a.key, a.began, a.version)
		if !ok {
			h.w.violation(a.key, "%s acknowledged version %d of %s, which the storage never held", a.site.name, a.version, a.key)
			return
		}
		h.show(a.site, a.key, at)
		return
	}
	keys := map[string]bool{}
	for _, top := range []string{a.key, a.key2} {
		for _, key := range h.w.bucket.keys(top) {
			keys[key] = top != "" && (key == top || a.tree)
		}
	}
	for key, mine := range keys {
		if at, ok := h.w.bucket.changed(key, a.began, -1); mine && ok && !at.After(a.ended) {
			h.show(a.site, key, at)
		}
	}
}

var words = map[outcome]string{acked: "done", refused: "refused", unknown: "unknown"}

func arrow(a *attempt) string {
	switch {
	case a.key2 != "":
		return " to " + a.key2
	case a.version > 0:
		return fmt.Sprintf(" version %d", a.version)
	}
	return ""
}

func (h *history) show(s *site, key string, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.seen[s] == nil {
		h.seen[s] = map[string]time.Time{}
	}
	if at.After(h.seen[s][key]) {
		h.seen[s][key] = at
	}
}

// since returns the moment that a read that begins now may not go back beyond.
func (h *history) since(s *site, key string) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reads++
	return later(h.seen[s][key], time.Now().Add(-h.w.oldest()))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// oldest is how old an answer may be at most, whatever happens: the bus notices a
// loss of contact within 10 s, then entries live for the degraded interval, and an
// operation whose writer died is published and out of quarantine after a while.
func (w *world) oldest() time.Duration { return 40 * time.Second }

// outcomeOf judges an error of a change.
func outcomeOf(err error, again bool) outcome {
	switch {
	case err == nil:
		return acked
	case !again && freshet.IsKind(err, freshet.KindInvalid, freshet.KindNotExist, freshet.KindExist, freshet.KindConflict, freshet.KindUnsupported):
		return refused
	}
	return unknown
}
