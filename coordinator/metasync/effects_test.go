package metasync_test

import (
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/metasync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
)

// upload is an upload of a test, step by step.
type upload struct {
	b       *bed
	effects *metasync.Effects
	op      freshet.OpID
}

func (b *bed) upload(p freshet.Path) *upload {
	b.Helper()
	u := &upload{b: b, effects: b.Effects(b.propose), op: newOp()}
	u.do(namespace.Command{Begin: &namespace.Begin{Op: u.op, Kind: namespace.OpWrite, Path: p, Node: "n", Incarn: 1}})
	return u
}

func (u *upload) do(cmd namespace.Command) namespace.Result {
	u.b.Helper()
	results, err := u.effects.Propose(u.b.Context(), cmd)
	if err == nil {
		err = results[0].Err
	}
	if err != nil {
		u.b.Fatal(err)
	}
	return results[0]
}

func (u *upload) permit() {
	u.b.Helper()
	u.do(namespace.Command{Permit: &namespace.Permit{Op: u.op, Node: "n", Incarn: 1}})
}

// lands writes the file and says what the storage then says of it.
func (u *upload) lands(key, data string) *namespace.Entry {
	u.b.Helper()
	u.b.store.Put(key, []byte(data))
	st, err := u.b.store.FS("").Stat(u.b.Context(), key)
	if err != nil {
		u.b.Fatal(err)
	}
	return &namespace.Entry{Name: "f", Type: freshet.TypeFile, Length: st.Length, ModTime: st.ModTime, Mode: st.Mode, Fingerprint: st.Fingerprint}
}

func (u *upload) complete(e *namespace.Entry, uncertain bool) namespace.Result {
	u.b.Helper()
	return u.do(namespace.Command{Complete: &namespace.Complete{Op: u.op, Entry: e, Uncertain: uncertain}})
}

// age returns the age of the entry at p, negative if it is not known.
func (b *bed) age(p freshet.Path) time.Duration {
	b.Helper()
	in, err := b.Inspect(p, b.rule)
	if err != nil {
		b.Fatal(err)
	}
	return in.Entry.Age
}

func minutely(t *testing.T) *bed {
	b := newBed(t, metasync.Options{})
	b.rule = metasync.Fixed(freshet.Interval(time.Minute))
	return b
}

func TestAnOwnWriteIsAValidationFromBeforeItsEffectWasSent(t *testing.T) {
	t.Parallel()
	b := minutely(t)
	b.store.Put("d/old", []byte("x"))
	if _, _, err := b.Listing(t.Context(), "/m/d", b.rule); err != nil {
		t.Fatal(err)
	}
	b.clock.Advance(30 * time.Second)
	u := b.upload("/m/d/f")
	b.clock.Advance(5 * time.Second) // of uploading
	u.permit()
	b.clock.Advance(2 * time.Second)
	u.permit() // again: the answer got lost
	b.clock.Advance(3 * time.Second)
	e := u.lands("d/f", "ours")
	b.clock.Advance(5 * time.Second) // the acknowledgement takes its time
	if !u.complete(e, false).Installed {
		t.Fatal("not installed")
	}
	if age := b.age("/m/d/f"); age != 10*time.Second {
		t.Errorf("it is %v old, 10s after the first permit", age)
	}
	// 30 s later the listing is a minute old and the file is not.
	b.clock.Advance(30 * time.Second)
	b.free("the file", func() { b.present("/m/d/f") })
	b.clock.Advance(20 * time.Second)
	b.costs("a minute after the permit", func() { b.present("/m/d/f") })
}

// TestAnotherProgramsWriteIsFoundAnIntervalAfterIt is why the age does not count
// from the acknowledgement.
func TestAnotherProgramsWriteIsFoundAnIntervalAfterIt(t *testing.T) {
	t.Parallel()
	b := minutely(t)
	u := b.upload("/m/d/f")
	u.permit()
	e := u.lands("d/f", "ours")
	b.store.Put("d/f", []byte("another program's, at once"))
	b.clock.Advance(20 * time.Second) // and only then the acknowledgement
	u.complete(e, false)
	b.clock.Advance(40 * time.Second)
	got, err := b.Entry(t.Context(), "/m/d/f", b.rule)
	if err != nil || got.Info.Length != 26 {
		t.Errorf("a minute after the other write: %+v, %v", got.Info, err)
	}
}

func TestWhatValidatesNothing(t *testing.T) {
	t.Parallel()
	for name, run := range map[string]func(b *bed, u *upload, e *namespace.Entry){
		"an outcome that is not sure": func(_ *bed, u *upload, e *namespace.Entry) { u.complete(e, true) },
		"another cluster's record meanwhile": func(b *bed, u *upload, e *namespace.Entry) {
			b.record(invalidation.Record{Kind: invalidation.KindContent, Key: "/d/f"})
			u.complete(e, false)
		},
		"another write meanwhile": func(b *bed, u *upload, e *namespace.Entry) {
			b.upload("/m/d/f")
			u.complete(e, false)
		},
		"a new leader": func(b *bed, u *upload, e *namespace.Entry) {
			b.Forget()
			u.complete(e, false)
		},
		"a leader that did not give the permit": func(b *bed, u *upload, e *namespace.Entry) {
			u.effects = b.Effects(b.propose)
			u.complete(e, false)
		},
		"a record right after": func(b *bed, u *upload, e *namespace.Entry) {
			u.complete(e, false)
			b.record(invalidation.Record{Kind: invalidation.KindContent, Key: "/d/f"})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := minutely(t)
			u := b.upload("/m/d/f")
			u.permit()
			run(b, u, u.lands("d/f", "ours"))
			in, err := b.Inspect("/m/d/f", b.rule)
			if err != nil || in.Entry.Fresh {
				t.Errorf("%+v, %v", in.Entry, err)
			}
			b.costs("the next read", func() { b.present("/m/d/f") })
		})
	}
}

func TestWhatTheCoordinatorDoesItselfIsAValidationToo(t *testing.T) {
	t.Parallel()
	b := minutely(t)
	effects := b.Effects(b.propose)
	u := &upload{b: b, effects: effects, op: newOp()}
	u.do(namespace.Command{Begin: &namespace.Begin{Op: u.op, Kind: namespace.OpMkdir, Path: "/m/d"}})
	b.clock.Advance(7 * time.Second)
	dir := &namespace.Entry{Name: "d", Type: freshet.TypeDirectory, Mode: 0o755, Fingerprint: fingerprint.Fingerprint{Meta: "m"}}
	if !u.complete(dir, false).Installed {
		t.Fatal("not installed")
	}
	if age := b.age("/m/d"); age != 7*time.Second {
		t.Errorf("it is %v old, 7s after the intent", age)
	}
}
