package azblob_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/sas"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/retry"
)

const mib = 1 << 20

func opID(n byte) freshet.OpID { return freshet.OpID{0: 1, 6: 0x70, 8: 0x80, 15: n} }

func content(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i>>8) ^ byte(i)
	}
	return b
}

func write(ctx context.Context, fs ufs.FS, key string, data []byte, opts ufs.CreateOptions) (ufs.Status, error) {
	if opts.Size == 0 {
		opts.Size = int64(len(data))
	}
	w, err := fs.Create(ctx, key, opts)
	if err != nil {
		return ufs.Status{}, err
	}
	if _, err = w.Write(data); err == nil {
		var st ufs.Status
		if st, err = w.Commit(ctx); err == nil {
			return st, nil
		}
	}
	_ = w.Abort(context.WithoutCancel(ctx)) // repeats what err says
	return ufs.Status{}, err
}

func mustWrite(tb testing.TB, fs ufs.FS, key string, data []byte) ufs.Status {
	tb.Helper()
	st, err := write(context.Background(), fs, key, data, ufs.CreateOptions{Op: opID(1)})
	if err != nil {
		tb.Fatalf("write %q: %v", key, err)
	}
	return st
}

func read(ctx context.Context, fs ufs.FS, key string, opts ufs.OpenOptions) ([]byte, error) {
	r, _, err := fs.Open(ctx, key, opts)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	if cerr := r.Close(); err == nil {
		err = cerr
	}
	return b, err
}

func wantContent(t *testing.T, fs ufs.FS, key string, want []byte) {
	t.Helper()
	got, err := read(t.Context(), fs, key, ufs.OpenOptions{Length: -1})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("content of %q: %d bytes, %v; want %d", key, len(got), err, len(want))
	}
}

func names(ctx context.Context, fs ufs.FS, dir string, opts ufs.ListOptions) ([]string, error) {
	all := []string{}
	for st, err := range fs.List(ctx, dir, opts) {
		if err != nil {
			return all, err
		}
		all = append(all, st.SortKey())
	}
	return all, nil
}

func wantKind(t *testing.T, what string, err error, kinds ...freshet.Kind) {
	t.Helper()
	if !freshet.IsKind(err, kinds...) {
		t.Errorf("%s: %v is %v, want %v", what, err, freshet.KindOf(err), kinds)
	}
}

func TestReadsAreRetried(t *testing.T) {
	b := newBucket(t)
	p := newProxy(t, b)
	fs := p.mount(t, b, "p", map[string]string{"request_timeout": "3s"})
	data := content(1, 100_000)
	mustWrite(t, fs, "d/f", data)
	for _, call := range []string{"Head", "List", "Get"} {
		for _, f := range []fault{busy, throttle, broken, reset, drop, stall} {
			p.set(f, 1, call)
			if st, err := fs.Stat(t.Context(), "d/f"); err != nil || st.Length != int64(len(data)) {
				t.Errorf("%s %v: stat: %+v, %v", call, f, st, err)
			}
			if got, err := names(t.Context(), fs, "d", ufs.ListOptions{}); err != nil || !slices.Equal(got, []string{"d/f"}) {
				t.Errorf("%s %v: list: %q, %v", call, f, got, err)
			}
			wantContent(t, fs, "d/f", data)
			if n := p.counts()[call]; n < 2 {
				t.Errorf("%s %v: %d requests", call, f, n)
			}
		}
	}
	// Not if somebody above repeats the call.
	p.set(busy, 0)
	_, err := fs.Stat(ufs.WithRepetition(t.Context()), "d/f")
	wantKind(t, "stat", err, freshet.KindUnavailable)
	if n := p.counts()["Head"]; n != 1 {
		t.Errorf("%d requests, although the caller repeats", n)
	}
}

// An outage is an error of its own, never an absence and never a short listing.
func TestOutageIsNeverAbsence(t *testing.T) {
	b := newBucket(t)
	p := newProxy(t, b)
	patient := b.open(t, "p", nil)
	mustWrite(t, patient, "d/f", []byte("x"))
	for _, f := range []fault{busy, throttle, broken, reset, drop, stall, notThere, noBucket, pageOfHTML} {
		timeout := "30s" // what there is no answer to says nothing of the other faults
		if f == stall {
			timeout = "200ms"
		}
		fs := p.mount(t, b, "p", map[string]string{"retries": "1", "request_timeout": timeout})
		p.set(f, 0, "Head", "List", "Get")
		for what, err := range map[string]error{
			"stat":   second(fs.Stat(t.Context(), "d/f")),
			"dir":    second(fs.Stat(t.Context(), "d")),
			"root":   second(fs.Stat(t.Context(), "")),
			"open":   second(read(t.Context(), fs, "d/f", ufs.OpenOptions{Length: -1})),
			"list":   second(names(t.Context(), fs, "d", ufs.ListOptions{})),
			"all":    second(names(t.Context(), fs, "", ufs.ListOptions{Recursive: true})),
			"mkdir":  second(fs.Mkdir(t.Context(), "e", ufs.MkdirOptions{})),
			"rename": second(fs.Rename(t.Context(), "d/f", "d/g")),
			"remove": fs.Remove(t.Context(), "d/f", ufs.RemoveOptions{}),
			"create": second(write(t.Context(), fs, "d/h", []byte("x"), ufs.CreateOptions{})),
		} {
			wantKind(t, fmt.Sprint("fault ", f, " ", what), err, freshet.KindUnavailable)
			if f == noBucket && !errors.Is(err, ufs.ErrNoRoot) {
				t.Errorf("%s: %v does not say that the container is missing", what, err)
			}
		}
	}
	p.set(pass, 0)
	if got, err := names(t.Context(), patient, "", ufs.ListOptions{Recursive: true}); err != nil || !slices.Equal(got, []string{"d/", "d/f"}) {
		t.Errorf("after the outages: %q, %v", got, err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestBodiesAreNeverWrong(t *testing.T) {
	b := newBucket(t)
	p := newProxy(t, b)
	fs := p.mount(t, b, "p", map[string]string{"request_timeout": "5s"})
	data := content(2, 3*mib)
	st := mustWrite(t, fs, "f", data)
	for _, f := range []fault{short, shortened, unranged} {
		for _, o := range []ufs.OpenOptions{{Length: -1}, {Offset: 10, Length: 2 * mib}, {Offset: 10, Length: -1}, {Want: st.Fingerprint, Offset: 5, Length: 5}} {
			if f == unranged && o.Offset == 0 {
				continue // it is right
			}
			p.set(f, 0, "Get")
			got, err := read(t.Context(), fs, "f", o)
			wantKind(t, fmt.Sprintf("fault %v %+v", f, o), err, freshet.KindUnavailable)
			if !bytes.HasPrefix(data[o.Offset:], got) {
				t.Errorf("fault %v: the bytes before the cut are wrong", f)
			}
		}
		if f == unranged {
			continue
		}
		p.set(f, 0, "List")
		_, err := names(t.Context(), fs, "", ufs.ListOptions{})
		wantKind(t, fmt.Sprintf("fault %v in a listing", f), err, freshet.KindUnavailable)
	}
}

// C12: an effect without a definite answer is reported as such, and not repeated.
func TestUncertainEffects(t *testing.T) {
	b := newBucket(t)
	p := newProxy(t, b)
	fs := p.mount(t, b, "p", map[string]string{"request_timeout": "2s", "retries": "5", "max_op_lifetime": "10s"})
	large := content(3, 2*mib+5)
	for call, effect := range map[string]func() error{
		"PutBlob": func() error {
			return second(write(t.Context(), fs, "d/put", []byte("new"), ufs.CreateOptions{Op: opID(2)}))
		},
		"PutBlockList": func() error { return second(write(t.Context(), fs, "d/large", large, ufs.CreateOptions{Op: opID(2)})) },
		"Delete":       func() error { return fs.Remove(t.Context(), "d/f", ufs.RemoveOptions{}) },
		"Copy":         func() error { return second(fs.Rename(t.Context(), "d/f", "d/g")) },
	} {
		for _, f := range []fault{busy, broken, reset, drop, stall} {
			p.set(pass, 0)
			mustWrite(t, fs, "d/f", []byte("old"))
			mustWrite(t, fs, "d/keep", []byte("old"))
			p.set(f, 0, call)
			err := effect()
			wantKind(t, fmt.Sprint(call, " ", f), err, freshet.KindDeadline)
			if errors.Is(err, ufs.ErrNotSent) {
				t.Errorf("%s %v: %v says that nothing was sent", call, f, err)
			}
			if n := p.counts()[call]; n != 1 {
				t.Errorf("%s %v: sent %d times", call, f, n)
			}
		}
		p.set(throttle, 0, call)
		wantKind(t, call+" throttled", effect(), freshet.KindUnavailable)
	}
}

// A block that did not arrive is sent again; when it never arrives nothing is
// visible.
func TestBlocksAreRetried(t *testing.T) {
	b := newBucket(t)
	p := newProxy(t, b)
	fs := p.mount(t, b, "p", map[string]string{"request_timeout": "10s"})
	data := content(4, 3*mib+7)
	for _, f := range []fault{busy, reset, drop} {
		p.set(f, 2, "PutBlock")
		mustWrite(t, fs, "f", data)
		wantContent(t, fs, "f", data)
		p.set(f, 0, "PutBlock")
		_, err := write(t.Context(), fs, "g", data, ufs.CreateOptions{Op: opID(1)})
		wantKind(t, fmt.Sprint("never a block: ", f), err, freshet.KindUnavailable)
		p.set(pass, 0)
		if _, err := fs.Stat(t.Context(), "g"); !freshet.IsKind(err, freshet.KindNotExist) {
			t.Errorf("left behind: %v", err)
		}
	}
}

func TestNothingWasSent(t *testing.T) {
	b := newBucket(t)
	fs := b.open(t, "p", map[string]string{"endpoint": "http://127.0.0.1:1/" + b.account, "retries": "0"})
	_, err := write(t.Context(), fs, "f", []byte("x"), ufs.CreateOptions{Vouched: true})
	wantKind(t, "create", err, freshet.KindUnavailable)
	if !errors.Is(err, ufs.ErrNotSent) {
		t.Errorf("%v does not say that nothing was sent", err)
	}
}

// In a storm of faults every call ends well or with an error that is true.
func TestStorm(t *testing.T) {
	b := newBucket(t)
	p := newProxy(t, b)
	inner := p.mount(t, b, "p", map[string]string{"request_timeout": "5s"})
	fs := retry.New(inner, retry.Options{First: time.Millisecond, Max: 10 * time.Millisecond})
	rng := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // faults
	p.script(func(string, *http.Request) fault {
		if rng.IntN(10) >= 3 {
			return pass
		}
		return []fault{busy, busy, busy, throttle, reset, drop, short}[rng.IntN(7)]
	})
	type fate struct {
		data    []byte
		certain bool // err says that it is there, or that it is not
		there   bool
	}
	fates, mu := map[string]fate{}, sync.Mutex{}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 12 {
				key := fmt.Sprintf("d%d/f%02d", i%3, i*100+j)
				data := content(byte(i*20+j), 1000+(j%4)*900_000)
				st, err := write(t.Context(), fs, key, data, ufs.CreateOptions{Op: opID(byte(i))})
				mu.Lock()
				fates[key] = fate{data, err == nil || !freshet.IsKind(err, freshet.KindDeadline), err == nil}
				mu.Unlock()
				if err != nil && !freshet.IsKind(err, freshet.KindDeadline, freshet.KindUnavailable) {
					t.Errorf("write %s: %v", key, err)
				}
				if err != nil {
					continue
				}
				got, err := read(t.Context(), fs, key, ufs.OpenOptions{Want: st.Fingerprint, Length: -1})
				if err != nil && !freshet.IsKind(err, freshet.KindUnavailable) || !bytes.HasPrefix(data, got) || err == nil && len(got) != len(data) {
					t.Errorf("read %s: %d bytes of %d, %v", key, len(got), len(data), err)
				}
				if _, err := fs.Stat(t.Context(), key); err != nil && !freshet.IsKind(err, freshet.KindUnavailable) {
					t.Errorf("stat %s: %v", key, err)
				}
			}
		})
	}
	wg.Wait()
	p.set(pass, 0)
	listed, err := names(t.Context(), fs, "", ufs.ListOptions{Recursive: true, PageSize: 7})
	if err != nil {
		t.Fatal(err)
	}
	certain := 0
	for key, f := range fates {
		there := slices.Contains(listed, key)
		if f.certain {
			certain++
			if f.there != there {
				t.Errorf("%s: listed is %v, want %v", key, there, f.there)
			}
		}
		if there {
			wantContent(t, fs, key, f.data)
		}
	}
	for _, key := range listed {
		if _, ok := fates[key]; !ok && !strings.HasSuffix(key, "/") {
			t.Errorf("%s was left behind", key)
		}
	}
	t.Logf("%d of %d writes had a certain outcome, %d files are there", certain, len(fates), len(listed))
}

// A signature that has run out is said to be the cause, and not shown.
func TestExpiredSAS(t *testing.T) {
	b := newBucket(t)
	mustWrite(t, b.open(t, "p", nil), "f", []byte("x"))
	all := sas.ContainerPermissions{Read: true, Write: true, List: true, Delete: true, Create: true}
	for what, fs := range map[string]ufs.FS{
		"expired":   b.withSAS(t, "p", all, -time.Hour, nil),
		"read only": b.withSAS(t, "p", sas.ContainerPermissions{Read: true, List: true}, time.Hour, nil),
	} {
		_, err := write(t.Context(), fs, "g", []byte("x"), ufs.CreateOptions{})
		wantKind(t, what, err, freshet.KindPermission)
		if strings.Contains(err.Error(), "sig=") || !strings.Contains(err.Error(), "credentials") {
			t.Errorf("%s: %v", what, err)
		}
		err = fs.Remove(t.Context(), "f", ufs.RemoveOptions{})
		wantKind(t, what, err, freshet.KindPermission)
	}
	fs := b.withSAS(t, "p", all, time.Hour, nil)
	mustWrite(t, fs, "d/large", content(1, 2*mib))
	if _, err := fs.Rename(t.Context(), "d/large", "d/moved"); err != nil {
		t.Error(err)
	}
	wantContent(t, fs, "d/moved", content(1, 2*mib))
	if err := fs.Remove(t.Context(), "d", ufs.RemoveOptions{Recursive: true}); err != nil {
		t.Error(err)
	}
	down := b.withSAS(t, "p", all, time.Hour, map[string]string{"endpoint": "http://127.0.0.1:1/" + b.account, "retries": "0"})
	if _, err := down.Stat(t.Context(), "f"); strings.Contains(err.Error(), "sig=") || strings.Contains(fmt.Sprintf("%+v", errors.Unwrap(err)), "sig=") {
		t.Errorf("the error shows the signature: %v", err)
	}
}
