package sim_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
)

// The keys of the bucket that clients use. Names of files and of directories are
// apart.
var (
	dirKeys  = []string{"/team/a", "/team/b", "/team/c", "/team/a/x", "/team/a/y", "/team/b/x", "/team/c/y"}
	fileKeys = func() []string {
		keys := []string{"/other/f0", "/other/f1", "/team/f0", "/team/f1", "/team/f2"}
		for _, dir := range dirKeys {
			keys = append(keys, dir+"/f0", dir+"/f1", dir+"/f2")
		}
		return keys
	}()
)

// actor is one client.
type actor struct {
	w     *world
	s     *site
	files *client.Client
	dice  *dice
	keys  []string // of files that its site can reach
	dirs  []string
}

func newActor(w *world, s *site, seed, stream uint64) *actor {
	a := &actor{w: w, s: s, dice: newDice(seed, stream)}
	a.files = s.clientFor(a.dice)
	for _, key := range fileKeys {
		if covers(s.prefix, key) {
			a.keys = append(a.keys, key)
		}
	}
	for _, key := range dirKeys {
		if covers(s.prefix, key) && key != s.prefix {
			a.dirs = append(a.dirs, key)
		}
	}
	return a
}

// work does random things until ctx ends.
func (a *actor) work(ctx context.Context, busy *sync.WaitGroup) {
	busy.Go(func() {
		for ctx.Err() == nil {
			pause(ctx, 5*time.Millisecond+a.dice.upTo(300*time.Millisecond))
			if ctx.Err() == nil {
				a.step()
			}
		}
	})
}

func (a *actor) file() string { return a.keys[a.dice.below(len(a.keys))] }
func (a *actor) dir() string  { return a.dirs[a.dice.below(len(a.dirs))] }

func (a *actor) step() {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	switch n := a.dice.below(100); {
	case n < 38:
		a.read(ctx, a.file(), freshet.Token{}, time.Time{})
	case n < 44:
		a.stat(ctx, a.file())
	case n < 54:
		a.list(ctx, a.dir())
	case n < 78:
		a.write(ctx, a.file())
	case n < 84:
		a.change(ctx, &attempt{what: "remove", key: a.file()}, func(op freshet.OpID, x *attempt) error {
			_, err := a.files.Remove(ctx, freshet.RemoveQuery{Op: op, Path: a.s.pathOf(x.key)})
			return err
		})
	case n < 87:
		a.change(ctx, &attempt{what: "remove tree", key: a.dir(), tree: true}, func(op freshet.OpID, x *attempt) error {
			_, err := a.files.Remove(ctx, freshet.RemoveQuery{Op: op, Path: a.s.pathOf(x.key), Recursive: true})
			return err
		})
	case n < 92:
		a.rename(ctx, &attempt{what: "rename", key: a.file(), key2: a.file()})
	case n < 96:
		a.rename(ctx, &attempt{what: "rename tree", key: a.dir(), key2: a.dir(), tree: true})
	case n < 98:
		mode := uint32(0o600 + a.dice.below(8)*8)
		a.change(ctx, &attempt{what: "chmod", key: a.file()}, func(op freshet.OpID, x *attempt) error {
			_, err := a.files.SetAttr(ctx, freshet.SetAttrQuery{Op: op, Path: a.s.pathOf(x.key), Mode: &mode})
			return err
		})
	default:
		a.change(ctx, &attempt{what: "mkdir", key: a.dir()}, func(op freshet.OpID, x *attempt) error {
			_, err := a.files.Mkdir(ctx, freshet.MkdirQuery{Op: op, Path: a.s.pathOf(x.key), Parents: true})
			return err
		})
	}
}

func (a *actor) rename(ctx context.Context, x *attempt) {
	if x.key == x.key2 {
		return
	}
	a.change(ctx, x, func(op freshet.OpID, x *attempt) error {
		_, err := a.files.Rename(ctx, freshet.RenameQuery{Op: op, Path: a.s.pathOf(x.key), Target: a.s.pathOf(x.key2), Overwrite: true})
		return err
	})
}

// change makes a change, and asks again with the same operation if nobody
// answered.
func (a *actor) change(ctx context.Context, x *attempt, do func(freshet.OpID, *attempt) error) {
	op := freshet.OpID(uuid.New())
	x.site, x.op = a.s, op
	a.w.hist.begin(x)
	err := do(op, x)
	again := false
	for range 2 {
		if !freshet.IsKind(err, freshet.KindUnavailable) || ctx.Err() != nil {
			break
		}
		again = true
		pause(ctx, 200*time.Millisecond)
		err = do(op, x)
	}
	a.w.hist.end(x, outcomeOf(err, again), err)
}

// write writes a file and sometimes reads it in another site with the token.
func (a *actor) write(ctx context.Context, key string) {
	length := 60 + a.dice.below(3000)
	if a.dice.below(8) == 0 {
		length = 60<<10 + a.dice.below(150<<10)
	}
	v, data := a.w.hist.newVersion(a.s, length)
	x := &attempt{site: a.s, op: freshet.OpID(uuid.New()), what: "write", key: key, version: v}
	a.chooseWrite(x)
	a.w.hist.begin(x)
	opts := client.WriteOptions{Op: x.op, Length: int64(len(data)), BlockSize: freshet.MinBlockSize, Write: x.write, DurableReplicas: x.replicas}
	done, err := a.files.Write(ctx, a.s.pathOf(key), bytes.NewReader(data), opts)
	o := outcomeOf(err, false)
	if err != nil && !freshet.IsKind(err, freshet.KindDeadline) {
		o = refused // nothing was written: the contract of Write
	}
	a.w.hist.end(x, o, err)
	if o == acked && x.kept() {
		a.w.durable(x)
	}
	if o != acked || x.kept() || a.dice.below(3) != 0 {
		return
	}
	at, ok := a.w.bucket.changed(key, x.began, v)
	if !ok {
		return
	}
	if done.Token.IsZero() {
		a.w.violation(key, "%s acknowledged a write of %s without a token", a.s.name, key)
	}
	other := a.w.sites[a.dice.below(len(a.w.sites))]
	if covers(other.prefix, key) {
		b := *a
		b.s, b.files = other, client.New(router{other}, nodesOf{other}, client.Options{})
		b.read(ctx, key, done.Token, at)
	}
}

// chooseWrite chooses how to write.
func (a *actor) chooseWrite(x *attempt) {
	n := a.dice.below(12)
	switch {
	case n < 3:
		x.write = freshet.Through
	case n < 7 || !a.w.settings.kept:
	case n < 10:
		x.write = freshet.MustCache
	default:
		x.write = freshet.AsyncThrough
	}
	if x.kept() {
		x.replicas = a.dice.below(3) // 0 leaves it to the policy, which says 1
	}
}

// read reads a file and judges what it got: the bytes of one version that the
// storage held at some moment that the site may go back to.
func (a *actor) read(ctx context.Context, key string, after freshet.Token, at time.Time) {
	from, began := later(a.w.hist.since(a.s, key), at), time.Now()
	mounted, there := a.s.mounted()
	opts := client.Whole()
	opts.After = after
	v := 0
	r, err := a.files.Open(ctx, a.s.pathOf(key), opts)
	if err == nil {
		var data []byte
		data, err = io.ReadAll(r)
		_ = r.Close() // read only
		if err == nil {
			var why string
			if v, why = a.w.hist.whole(data); why != "" {
				a.w.violation(key, "S10: %s read %s: %s", a.s.name, key, why)
				return
			}
		}
	}
	if err != nil && !freshet.IsKind(err, freshet.KindNotExist) {
		a.w.story.addAbout(key, "%s: read %s → %v", a.s.name, key, err)
		return
	}
	if now, _ := a.s.mounted(); v == 0 && (!there || now != mounted) {
		return // it is the mount that does not exist
	}
	a.judge(answer{"read", key, from, began, v, !after.IsZero()})
}

// answer is what a client got: a version, which the storage may have held since a moment,
// and which is all that the site has if it is not in the storage.
type answer struct {
	what, key   string
	from, began time.Time
	version     int
	token       bool
}

// judge finds answers that are older than they may be.
func (a *actor) judge(x answer) {
	now := time.Now()
	a.w.story.addAbout(x.key, "%s: %s %s → version %d (token %t)", a.s.name, x.what, x.key, x.version, x.token)
	if may := a.w.hist.allowed(a.s, x.key, x.from, x.began, now); !may[x.version] {
		a.w.violation(x.key, "%s of %s in %s gave version %d; since %.3fs it may be one of %v (token: %t)",
			x.what, x.key, a.s.name, x.version, x.from.Sub(a.w.start).Seconds(), may, x.token)
	}
}

func (a *actor) stat(ctx context.Context, key string) {
	from, began := a.w.hist.since(a.s, key), time.Now()
	mounted, there := a.s.mounted()
	st, err := a.files.Stat(ctx, a.s.pathOf(key), freshet.ReadOptions{})
	if now, _ := a.s.mounted(); err != nil && (!there || now != mounted) {
		return
	}
	if freshet.IsKind(err, freshet.KindNotExist) {
		a.judge(answer{"stat", key, from, began, 0, false})
		return
	}
	if err != nil {
		return
	}
	may := a.w.hist.allowed(a.s, key, from, began, time.Now())
	for v := range may {
		if v > 0 && a.w.hist.length(v) == st.Info.Length {
			return
		}
	}
	a.w.violation(key, "stat of %s in %s: %d bytes; since %.3fs it may be one of versions %v", key, a.s.name, st.Info.Length, from.Sub(a.w.start).Seconds(), may)
}

// list lists a directory and judges the presence of each file in it.
func (a *actor) list(ctx context.Context, dir string) {
	froms, began := map[string]time.Time{}, time.Now()
	for _, key := range a.keys {
		if key[:strings.LastIndexByte(key, '/')] == dir {
			froms[key] = a.w.hist.since(a.s, key)
		}
	}
	mounted, there := a.s.mounted()
	names, err := listAll(ctx, a.files, freshet.ListQuery{Path: a.s.pathOf(dir), PageSize: 3})
	if err != nil && !freshet.IsKind(err, freshet.KindNotExist) {
		return
	}
	if number, _ := a.s.mounted(); !there || number != mounted {
		return
	}
	now := time.Now()
	for key, from := range froms {
		_, there := names[a.s.pathOf(key)]
		may := a.w.hist.allowed(a.s, key, from, began, now)
		absent := may[0]
		delete(may, 0)
		if (there && len(may) == 0) || (!there && !absent) {
			a.w.violation(key, "list of %s in %s: %s is listed: %t; since %.3fs it may be one of versions %v, or absent: %t",
				dir, a.s.name, key, there, from.Sub(a.w.start).Seconds(), may, absent)
		}
	}
}

// listAll returns all pages.
func listAll(ctx context.Context, files *client.Client, q freshet.ListQuery) (map[freshet.Path]freshet.Info, error) {
	out := map[freshet.Path]freshet.Info{}
	for {
		page, err := files.List(ctx, q)
		if err != nil {
			return out, err
		}
		for _, e := range page.Entries {
			out[e.Path] = e
		}
		if q.PageToken = page.NextPageToken; q.PageToken == "" {
			return out, nil
		}
	}
}
