package sim_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/coordinator"
)

// asPromised looks, when all is quiet, at each file that must be there and is not in the
// storage: it is readable as long as one of the disks is there that it was promised to be
// on, which keep it; else it is told as lost, and never replaced by anything else.
func (w *world) asPromised() {
	for _, s := range w.sites {
		files := client.New(router{s}, nodesOf{s}, client.Options{})
		for _, key := range fileKeys {
			if a := w.hist.owed(s, key); a != nil && covers(s.prefix, key) {
				w.stay.owed++
				w.readable(s, files, key, a)
			}
		}
	}
}

// readable judges one of them.
func (w *world) readable(s *site, files *client.Client, key string, a *attempt) {
	v, err := w.readNow(s, files, key, a)
	if w.hist.owed(s, key) != a {
		return // it was persisted meanwhile
	}
	for _, d := range a.held {
		if !d.destroyed() && (!d.has(a.file, a.blocks) || !d.holds(a.file)) {
			w.violation(key, "version %d of %s, which is not in the storage, is no longer kept on a disk of %s that had it when it was acknowledged", a.version, key, s.name)
		}
	}
	switch {
	case err == nil && v == a.version:
	case err == nil:
		w.violation(key, "%s shows version %d of %s in place of version %d, which is not in the storage (survives: %t)", s.name, v, key, a.version, a.survives())
	case a.survives():
		w.violation(key, "%s can't read version %d of %s, which is not in the storage and on a disk that is there: %v", s.name, a.version, key, err)
	case !freshet.IsKind(err, freshet.KindUnavailable):
		w.violation(key, "%s does not say that version %d of %s is lost: %v", s.name, a.version, key, err)
	default:
		w.stay.lost++
		w.story.addAbout(key, "%s: version %d of %s is lost, and told: %v", s.name, a.version, key, err)
	}
}

// readNow reads a file until it can be, or is something else: nodes need a while to tell
// their leader what they hold.
func (w *world) readNow(s *site, files *client.Client, key string, a *attempt) (v int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(500 * time.Millisecond) {
		var r *client.Reader
		var data []byte
		if r, err = files.Open(ctx, s.pathOf(key), client.Whole()); err == nil {
			data, err = io.ReadAll(r)
			_ = r.Close() // read only
		}
		if err == nil {
			return versionOf(data), nil
		}
		if !freshet.IsKind(err, freshet.KindUnavailable) || !a.survives() || time.Now().After(deadline) {
			return 0, err
		}
	}
}

// persisted has each site persist all that is not in its storage, and holds it to that: what
// is not lost is in the storage then, and no node keeps anything any more.
func (w *world) persisted() bool {
	for _, s := range w.sites {
		owed := map[string]*attempt{}
		for _, key := range fileKeys {
			if a := w.hist.owed(s, key); a != nil && covers(s.prefix, key) {
				owed[key] = a
			}
		}
		p := persister{w: w, s: s, actor: newActor(w, s, w.settings.seed, 5000), removed: map[string]bool{}}
		if !w.until(5*time.Minute, s.name+" has persisted everything", p.step) {
			return false
		}
		for key, a := range owed {
			if !p.removed[key] && !w.bucket.holds(key, a.version) {
				w.violation(key, "version %d of %s in %s was neither lost nor is it in the storage after all was persisted", a.version, key, s.name)
			}
		}
		if !w.until(time.Minute, s.name+" lets everything go", func() string {
			for _, n := range s.nodes {
				if b := n.media().keeps(); b > 0 {
					return fmt.Sprintf("%s still keeps %d bytes, though nothing is unpersisted", n.name, b)
				}
			}
			return ""
		}) {
			return false
		}
	}
	return true
}

// persister is an operator who wants everything in the storage.
type persister struct {
	w       *world
	s       *site
	actor   *actor
	removed map[string]bool // keys of files that were lost
}

// step does what is to be done, and says what is missing.
func (p *persister) step() string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	u, err := call(ctx, p.s, func(c *coordinator.Coordinator) (freshet.Unpersisted, error) {
		return c.Unpersisted(ctx, freshet.UnpersistedQuery{Path: p.s.path, Limit: freshet.MaxUnpersistedPage})
	})
	if err != nil {
		return err.Error()
	}
	for i := range u.Files {
		p.one(ctx, &u.Files[i])
	}
	if u.Count == 0 {
		return ""
	}
	f := u.Files[0]
	return fmt.Sprintf("%d files are not in the storage, %s is %s after %d attempts (%s)", u.Count, f.Path, f.State, f.Attempts, f.Error)
}

func (p *persister) one(ctx context.Context, f *freshet.UnpersistedFile) {
	key := p.s.key(f.Path)
	q := freshet.PersistQuery{Path: f.Path}
	switch f.State {
	case freshet.UnpersistedQueued, freshet.UnpersistedPersisting:
		return
	case freshet.UnpersistedLost:
		if a := p.w.hist.writeOf(p.s, f.File); a != nil && a.survives() {
			p.w.violation(key, "%s says that version %d of %s is lost, which is on a disk that is there", p.s.name, a.version, key)
		}
		p.removed[key] = true
		p.actor.change(ctx, &attempt{what: "remove", key: key}, func(op freshet.OpID, _ *attempt) error {
			_, err := p.actor.files.Remove(ctx, freshet.RemoveQuery{Op: op, Path: f.Path})
			return err
		})
		return
	case freshet.UnpersistedConflict:
		q.Overwrite = true
		p.w.stay.conflicts++
		if v, own := p.w.hist.ownAt(p.s, key, p.w.bucket.version(key)); own {
			p.w.violation(key, "%s says that somebody else wrote %s, where it alone did since it wrote version %d, which is there", p.s.name, key, v)
		}
	}
	_, err := call(ctx, p.s, func(c *coordinator.Coordinator) (freshet.Unpersisted, error) { return c.Persist(ctx, q) })
	p.w.story.addAbout(key, "%s: persist of %s (%s): %v", p.s.name, key, f.State, err)
}

// shipment is an upload of a version, by its operation.
type shipment struct {
	op        freshet.OpID
	key       string
	site      *site
	version   int
	permitted time.Time
	over      bool // nothing of it can get to the storage any more
}

// begun notes an upload.
func (b *bucket) begun(u *flakyWriter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.writers[u.opts.Op] = u
}

// permitted notes that an upload may have its effect from now on.
func (b *bucket) permitted(op freshet.OpID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.writers[op]
	if u == nil {
		return
	}
	b.ships[op] = &shipment{op: op, key: u.f.p.site.storeKey(u.key), site: u.f.p.site, version: versionOf(u.bytes.Bytes()), permitted: time.Now()}
}

// ended notes that nothing of an upload can get to the storage any more.
func (b *bucket) ended(op freshet.OpID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if x := b.ships[op]; x != nil {
		x.over = true
	}
}

// overtaken says which other upload of the same version was permitted while this one, of
// which the effect is to come now, was not over; nil if none was.
func (b *bucket) overtaken(op freshet.OpID) (this, other *shipment) {
	b.mu.Lock()
	defer b.mu.Unlock()
	this = b.ships[op]
	if this == nil || this.version <= 0 || this.over {
		return this, nil
	}
	for _, o := range b.ships {
		if o.op != op && o.site == this.site && o.version == this.version && o.permitted.After(this.permitted) {
			return this, o
		}
	}
	return this, nil
}

// arrives is called when the effect of an upload gets to the storage.
func (w *world) arrives(op freshet.OpID) {
	if this, other := w.bucket.overtaken(op); other != nil {
		w.violation(this.key, "version %d of %s is written to the storage twice at a time: by operation %s, permitted at %.3fs, and by %s, permitted at %.3fs",
			this.version, this.key, this.op, this.permitted.Sub(w.start).Seconds(), other.op, other.permitted.Sub(w.start).Seconds())
	}
}

// shipped returns the upload of an unpersisted version that has an operation.
func (w *world) shipped(s *site, op freshet.OpID) *shipment {
	w.bucket.mu.Lock()
	defer w.bucket.mu.Unlock()
	x := w.bucket.ships[op]
	if x == nil || x.site != s {
		return nil
	}
	if slices.ContainsFunc(w.hist.attempts, func(a *attempt) bool { return a.kept() && a.version == x.version && a.site == s }) {
		return x
	}
	return nil
}

// prepared reports whether a directory was made for a write that stays on nodes.
func (w *world) prepared(s *site, key string) bool {
	return slices.ContainsFunc(w.hist.attempts, func(a *attempt) bool {
		return a.site == s && a.kept() && covers(key, a.key[:strings.LastIndexByte(a.key, '/')])
	})
}

// holds reports whether a key of the storage holds a version.
func (b *bucket) holds(key string, version int) bool { return b.version(key) == version }

// version returns the version that the storage holds, 0 if there is none.
func (b *bucket) version(key string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held[key]
}

// ownAt reports whether a version at a key is of a cluster, and no other one has changed
// the key, or one by way of which it may have come there, since it was written.
func (h *history) ownAt(s *site, key string, version int) (int, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sites[version] != s {
		return version, false
	}
	i := slices.IndexFunc(h.attempts, func(a *attempt) bool { return a.version == version })
	if i < 0 || s.rebuilt.After(h.attempts[i].began) {
		return version, false
	}
	since := slices.DeleteFunc(slices.Clone(h.attempts), func(a *attempt) bool {
		return a.denied() || a.outcome != running && a.outcome != unknown && a.ended.Before(h.attempts[i].began)
	})
	const longest = 32 // of ways that are followed
	way := []string{key}
	for i := 0; i < len(way); i++ {
		for _, a := range since {
			if a.site != s && a.covers(way[i]) || len(way) > longest {
				return version, false
			}
			if from, ok := a.source(way[i]); ok && !slices.Contains(way, from) {
				way = append(way, from)
			}
		}
	}
	return version, true
}
