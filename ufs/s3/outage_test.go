package s3_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/test/s3test"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/retry"
)

func errorsIsNotSent(err error) bool { return errors.Is(err, ufs.ErrNotSent) }

// A storage on which a share of all requests fails: what is acknowledged is there,
// what is read is right, what was refused left nothing behind.
func TestUnreliableStorage(t *testing.T) {
	for name, rules := range map[string][]s3test.Rule{
		"503":        {{Op: s3test.AnyOp, Action: s3test.ActionStatus, Status: 503, Probability: 0.3}},
		"resets":     {{Op: s3test.AnyOp, Action: s3test.ActionReset, Probability: 0.2}},
		"no answers": {{Op: s3test.AnyOp, Action: s3test.ActionDropResponse, Probability: 0.15}},
		"short bodies": {
			{Op: "GetObject", Action: s3test.ActionShortBody, Probability: 0.3},
			{Op: "ListObjectsV2", Action: s3test.ActionShortBody, Probability: 0.3},
		},
		"stalls": {{Op: s3test.AnyOp, Action: s3test.ActionStall, Probability: 0.02}},
		"everything": {
			{Op: s3test.AnyOp, Action: s3test.ActionStatus, Status: 500, Probability: 0.1},
			{Op: s3test.AnyOp, Action: s3test.ActionReset, Probability: 0.1},
			{Op: s3test.AnyOp, Action: s3test.ActionDropResponse, Probability: 0.05},
			{Op: s3test.AnyOp, Action: s3test.ActionShortBody, Probability: 0.05},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := s3test.Start(t, s3test.Options{})
			m := newMount(t, srv, nil)
			fs := retry.New(m.again(t, map[string]string{"request_timeout": "2s", "part_size": "5MiB"}), retry.Options{First: time.Millisecond, Max: 20 * time.Millisecond, Quota: 1000})
			u := unreliable{t: t, fs: fs, known: map[string][][]byte{}}
			srv.AddFault(rules...)
			for round := range 40 {
				u.round(round)
			}
			srv.ClearFaults()
			u.settle(m)
			t.Logf("%d of %d operations succeeded", u.good, u.all)
			if u.good < u.all/4 {
				t.Error("hardly anything worked")
			}
		})
	}
}

// unreliable is a user of a storage that fails, and what it knows of each file:
// what may be in it, nil for nothing.
type unreliable struct {
	t         *testing.T
	fs        ufs.FS
	known     map[string][][]byte
	ops       []freshet.OpID
	good, all int
}

func (u *unreliable) round(n int) {
	key := fmt.Sprintf("d/f%d", n%7)
	size := 100 + n
	switch {
	case n%20 == 19:
		size = 6*mib + n
	case n%3 == 0:
		size = 100<<10 + n
	}
	var op freshet.OpID
	op[0], op[1] = 9, byte(n)
	u.ops = append(u.ops, op)
	data := content(byte(n), size)
	_, err := write(u.t.Context(), u.fs, key, data, ufs.CreateOptions{Op: op, Size: int64(size)})
	u.count(err)
	if u.known[key] == nil {
		u.known[key] = [][]byte{nil}
	}
	switch {
	case err == nil:
		u.known[key] = [][]byte{data}
	case freshet.IsKind(err, freshet.KindDeadline):
		u.known[key] = append(u.known[key], data)
	case !freshet.IsKind(err, freshet.KindUnavailable):
		u.t.Errorf("write: %v (%v)", err, freshet.KindOf(err))
	}
	for key := range u.known {
		u.read(key)
	}
	u.list()
	if n%11 == 10 {
		err := u.fs.Remove(u.t.Context(), key, ufs.RemoveOptions{})
		u.count(err)
		switch {
		case err == nil:
			u.known[key] = [][]byte{nil}
		case freshet.IsKind(err, freshet.KindDeadline):
			u.known[key] = append(u.known[key], nil)
		}
	}
}

func (u *unreliable) count(err error) {
	u.all++
	if err == nil {
		u.good++
	}
}

// may reports whether data, nil for no file, may be what is at key.
func (u *unreliable) may(key string, data []byte, absent bool) bool {
	for _, k := range u.known[key] {
		if k == nil && absent || k != nil && !absent && bytes.Equal(k, data) {
			return true
		}
	}
	return false
}

func (u *unreliable) read(key string) {
	got, err := read(u.t.Context(), u.fs, key, ufs.OpenOptions{Length: -1})
	absent := freshet.IsKind(err, freshet.KindNotExist)
	switch {
	case err == nil || absent:
		u.count(nil)
		if !u.may(key, got, absent) {
			u.t.Errorf("%s: %d bytes, absent %v: wrong", key, len(got), absent)
		}
	case !freshet.IsKind(err, freshet.KindUnavailable):
		u.t.Errorf("read: %v (%v)", err, freshet.KindOf(err))
	default:
		u.count(err)
	}
}

// list checks that a listing without an error holds what must be there, and
// nothing that can't be.
func (u *unreliable) list() {
	found := map[string]bool{}
	for st, err := range u.fs.List(u.t.Context(), "d", ufs.ListOptions{PageSize: 2}) {
		switch {
		case err == nil:
			found[st.Key] = true
			continue
		case freshet.IsKind(err, freshet.KindNotExist):
		case !freshet.IsKind(err, freshet.KindUnavailable):
			u.t.Errorf("list: %v (%v)", err, freshet.KindOf(err))
			return
		default:
			u.count(err)
			return
		}
	}
	u.count(nil)
	for key, states := range u.known {
		mayBe, mayMiss := false, false
		for _, s := range states {
			mayBe, mayMiss = mayBe || s != nil, mayMiss || s == nil
		}
		if found[key] && !mayBe || !found[key] && !mayMiss {
			u.t.Errorf("list: %s is there: %v, may be: %v, may be missing: %v", key, found[key], mayBe, mayMiss)
		}
	}
}

// settle looks at the storage after the faults: what a leader would end is ended,
// and nothing is left.
func (u *unreliable) settle(m mount) {
	for i, op := range u.ops {
		if _, err := u.fs.AbortUpload(u.t.Context(), fmt.Sprintf("d/f%d", i%7), op); err != nil {
			u.t.Errorf("abort: %v", err)
		}
	}
	for key := range u.known {
		u.read(key)
	}
	u.list()
	m.SetNow(func() time.Time { return time.Now().Add(48 * time.Hour) })
	if _, err := m.CleanUploads(u.t.Context(), time.Hour); err != nil {
		u.t.Errorf("clean: %v", err)
	}
	left := uploadsLeft(u.t, m)
	if left > 0 {
		m.SetForeign(time.Hour)
		n, err := m.CleanUploads(u.t.Context(), time.Hour)
		u.t.Logf("%d uploads had no mark yet when their storage failed; %d ended with the operator's consent, %v", left, n, err)
		if left = uploadsLeft(u.t, m); left > 0 {
			u.t.Errorf("%d uploads left", left)
		}
	}
}

// A stall ends in time or is waited for, as the mount says.
func TestStall(t *testing.T) {
	const delay = 5 * time.Second
	for name, tc := range map[string]struct {
		timeout string
		delay   time.Duration // of one answer
		least   time.Duration
	}{"impatient": {"3s", time.Minute, 0}, "patient": {"20s", delay, delay}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := s3test.Start(t, s3test.Options{})
			m := newMount(t, srv, nil)
			data := content(1, 300_000)
			mustWrite(t, m, "f", data)
			fs := retry.New(m.again(t, map[string]string{"request_timeout": tc.timeout}), retry.Options{})
			srv.AddFault(s3test.Rule{Op: "GetObject", Action: s3test.ActionDelay, DelayMs: int(tc.delay.Milliseconds()), Times: 1})
			start := time.Now()
			got, err := read(t.Context(), fs, "f", ufs.OpenOptions{Length: -1})
			if took := time.Since(start); err != nil || !bytes.Equal(got, data) || took < tc.least || tc.least == 0 && took >= tc.delay {
				t.Errorf("%d bytes, %v, after %v", len(got), err, took)
			}
		})
	}
}
