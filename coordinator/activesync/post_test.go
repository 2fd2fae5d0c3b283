package activesync_test

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/coordinator/activesync"
	"github.com/freshet-io/freshet/coordinator/namespace"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
	"github.com/freshet-io/freshet/ufs/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bucket is an object store that is heard by what is posted.
type bucket struct {
	*mem.FS
	events.Hooked
}

// Close is that of the storage.
func (b bucket) Close() error { return b.FS.Close() }

// quiet is a storage that tells that it is watched, and nothing else
// but what it is given.
type quiet struct {
	*mem.FS

	tells []invalidation.Record
}

func (quiet) WatchSource() (ufs.WatchSource, error) {
	return ufs.WatchSource{ID: "quiet", Complete: true}, nil
}

func (q quiet) Watch(ctx context.Context, since []byte) iter.Seq2[ufs.Notice, error] {
	return func(yield func(ufs.Notice, error) bool) {
		for yield(ufs.Notice{Changes: q.tells, Cursor: append([]byte("then"), since...)}, nil) {
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
				return
			}
		}
	}
}

// cluster is the mounts and the log that an engine works with.
type cluster struct {
	mu      sync.Mutex
	mounts  []freshet.Mount
	places  map[freshet.MountID]ufs.Place
	changed chan struct{}
	hints   []namespace.Hint
	refuse  error
	cursor  namespace.WatchCursor
	watched bool            // not posted to
	closed  freshet.MountID // its storage can't be opened
	tells   []invalidation.Record
	largest int // bytes that were proposed at once
	opened  int // storages
}

func (c *cluster) WatchCursor(source string) (namespace.WatchCursor, bool) {
	return c.cursor, c.cursor.Source == source
}
func (c *cluster) WatchCursors() []namespace.WatchCursor { return nil }

func (c *cluster) table() ([]freshet.Mount, <-chan struct{}) { return c.mounts, c.changed }

func (c *cluster) storage(m freshet.Mount) (ufs.FS, func(), error) {
	c.mu.Lock()
	c.opened++
	c.mu.Unlock()
	if c.closed == m.ID {
		return nil, nil, freshet.Errorf(freshet.KindUnavailable, "open", "", "a secret can't be read")
	}
	if c.watched {
		return quiet{mem.New(mem.Options{}).FS(""), c.tells}, func() {}, nil
	}
	fs := bucket{mem.New(mem.Options{}).FS(""), events.NewHooked(events.OptionWebhook, c.places[m.ID])}
	return fs, func() {}, nil
}

func (c *cluster) propose(_ context.Context, cmds ...namespace.Command) ([]namespace.Result, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse != nil {
		return nil, c.refuse
	}
	data, err := namespace.EncodeBatch(cmds)
	if err != nil {
		return nil, err
	}
	c.largest = max(c.largest, len(data))
	for _, cmd := range cmds {
		c.hints = append(c.hints, *cmd.Hint)
	}
	return make([]namespace.Result, len(cmds)), nil
}

// marked returns what was marked since the last call, one word each.
func (c *cluster) marked() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for _, h := range c.hints {
		for _, r := range h.Records {
			out = append(out, fmt.Sprintf("%s%s", r.Kind, r.Key))
		}
	}
	c.hints = nil
	return strings.Join(out, " ")
}

// add mounts a part of a bucket.
func (c *cluster) add(authority, key string, options map[string]string) {
	id := freshet.MountID(len(c.mounts) + 1)
	canonical := ufs.Canonical{Authority: authority, DomainKey: key}
	place := ufs.Place{Authority: authority, Key: key}
	if name := options[ufs.OptionDomain]; name != "" {
		canonical = ufs.Canonical{Authority: name, DomainKey: options[ufs.OptionDomainRoot]}
	}
	c.places[id] = place
	c.mounts = append(c.mounts, freshet.Mount{
		ID: id, Generation: uint64(id), Path: freshet.Path(fmt.Sprintf("/m%d", id)), Options: options, ActiveSync: true,
		Domain: canonical.Domain(), DomainKey: canonical.DomainKey,
	})
}

func secrets(ref ufs.SecretRef) (ufs.Secret, error) {
	if ref.Name == "BROKEN" {
		return ufs.Secret{}, freshet.Errorf(freshet.KindInvalid, "read secret", "", "not set")
	}
	return ufs.NewSecret("secret of " + ref.Name), nil
}

func s3(bucket, key string) []byte {
	return fmt.Appendf(nil, `{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventTime":"2026-11-05T10:11:12Z","eventName":"ObjectCreated:Put","s3":{"bucket":{"name":%q},"object":{"key":%q,"size":5,"eTag":"0123456789abcdef0123456789abcdef"}}}]}`, bucket, key)
}

// start runs an engine in the bubble until the test ends.
func start(t *testing.T, c *cluster) *activesync.Engine {
	t.Helper()
	c.changed = make(chan struct{})
	e := activesync.New(activesync.Deps{State: c, Mounts: c.table, Storage: c.storage, Propose: c.propose}, activesync.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx, 1) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return e
}

func TestWhoMayPost(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{places: map[freshet.MountID]ufs.Place{}}
		c.add("s3://guarded", "/", map[string]string{ufs.OptionEventsToken: "env:A"})
		c.add("s3://other", "/", map[string]string{ufs.OptionEventsToken: "env:B"})
		c.add("s3://open", "/", nil)
		c.add("s3://broken", "/", map[string]string{ufs.OptionEventsToken: "env:BROKEN"})
		e := start(t, c)
		for _, tt := range []struct {
			name    string
			post    freshet.EventPost
			kind    freshet.Kind
			marked  string
			ignored int
		}{
			{"stranger", freshet.EventPost{Body: s3("open", "f")}, freshet.KindUnauthenticated, "", 0},
			{"stranger on a guarded bucket", freshet.EventPost{Body: s3("guarded", "f")}, freshet.KindUnauthenticated, "", 0},
			{"stranger guesses a bucket", freshet.EventPost{Body: s3("nobody", "f")}, freshet.KindUnauthenticated, "", 0},
			{"wrong token", freshet.EventPost{Body: s3("guarded", "f"), Token: "secret of C"}, freshet.KindPermission, "", 0},
			{"part of the token", freshet.EventPost{Body: s3("guarded", "f"), Token: "secret of "}, freshet.KindPermission, "", 0},
			{"another bucket's token", freshet.EventPost{Body: s3("guarded", "f"), Token: "secret of B"}, freshet.KindPermission, "", 0},
			{"token on an open bucket", freshet.EventPost{Body: s3("open", "f"), Token: "secret of A"}, freshet.KindPermission, "", 0},
			{"token", freshet.EventPost{Body: s3("guarded", "f"), Token: "secret of A"}, freshet.KindOK, "content/f", 0},
			{"token on no bucket", freshet.EventPost{Body: s3("nobody", "f"), Token: "secret of A"}, freshet.KindOK, "", 1},
			{"trusted", freshet.EventPost{Body: s3("open", "f"), Trusted: true}, freshet.KindOK, "content/f", 0},
			{"trusted on no bucket", freshet.EventPost{Body: s3("nobody", "f"), Trusted: true}, freshet.KindOK, "", 1},
			{"trusted without the token", freshet.EventPost{Body: s3("guarded", "f"), Trusted: true}, freshet.KindUnauthenticated, "", 0},
			{"trusted with it", freshet.EventPost{Body: s3("guarded", "f"), Trusted: true, Token: "secret of A"}, freshet.KindOK, "content/f", 0},
			{"secret can't be read", freshet.EventPost{Body: s3("broken", "f"), Trusted: true, Token: "x"}, freshet.KindUnavailable, "", 0},
			{"not an event", freshet.EventPost{Body: []byte("x"), Trusted: true}, freshet.KindInvalid, "", 0},
			{"handshake of a stranger", freshet.EventPost{Body: []byte("[]")}, freshet.KindUnauthenticated, "", 0},
			{"handshake", freshet.EventPost{Body: []byte("[]"), Token: "secret of B"}, freshet.KindOK, "", 0},
		} {
			a, err := e.Post(t.Context(), tt.post, secrets)
			if freshet.KindOf(err) != tt.kind || a.Ignored != tt.ignored {
				t.Errorf("%s: %+v, %v", tt.name, a, err)
			}
			if got := c.marked(); got != tt.marked {
				t.Errorf("%s: marked %q, want %q", tt.name, got, tt.marked)
			}
			if err != nil && strings.Contains(err.Error(), "secret of") {
				t.Errorf("%s: the secret is in %v", tt.name, err)
			}
		}
	})
}

func TestPostsReachTheMountsByTheStoragesOwnNames(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{places: map[freshet.MountID]ufs.Place{}}
		c.add("s3://b", "/in", nil)
		c.add("s3://b", "/there", map[string]string{ufs.OptionDomain: "lake", ufs.OptionDomainRoot: "/root"})
		e := start(t, c)
		for key, want := range map[string]string{"in/f": "content/in/f", "there/d/f": "content/root/d/f", "elsewhere/f": ""} {
			a, err := e.Post(t.Context(), freshet.EventPost{Body: s3("b", key), Trusted: true}, secrets)
			if got := c.marked(); err != nil || got != want || a.Marked+a.Ignored != 1 || (a.Marked == 1) != (want != "") {
				t.Errorf("%s: marked %q, %+v, %v", key, got, a, err)
			}
		}
		c.refuse = freshet.Errorf(freshet.KindNotLeader, "propose", "", "not the leader")
		if _, err := e.Post(t.Context(), freshet.EventPost{Body: s3("b", "in/f"), Trusted: true}, secrets); !errors.Is(err, freshet.KindNotLeader) {
			t.Errorf("answered before the marks were replicated: %v", err)
		}
	})
}

// A stranger can't make a leader read what he sent, nor open storages.
func TestStrangersCostNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{places: map[freshet.MountID]ufs.Place{}}
		c.add("s3://guarded", "/", map[string]string{ufs.OptionEventsToken: "env:A"})
		e := start(t, c)
		before := c.opened
		for token, want := range map[string]freshet.Kind{"": freshet.KindUnauthenticated, "guess": freshet.KindPermission} {
			if _, err := e.Post(t.Context(), freshet.EventPost{Body: []byte("not an event"), Token: token}, secrets); freshet.KindOf(err) != want {
				t.Errorf("token %q: %v", token, err)
			}
		}
		if n := c.opened - before; n != 0 {
			t.Errorf("%d storages were opened", n)
		}
	})
}

// The option domain hides which storage a mount is of while that can't be opened.
func TestAPostMarksAMountThatCanNotBeOpenedNow(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{places: map[freshet.MountID]ufs.Place{}}
		c.add("s3://b", "/there", map[string]string{ufs.OptionDomain: "lake", ufs.OptionDomainRoot: "/root"})
		c.add("s3://guarded", "/there", map[string]string{ufs.OptionDomain: "pond", ufs.OptionDomainRoot: "/root", ufs.OptionEventsToken: "env:A"})
		c.add("s3://c", "/in", nil)
		e := start(t, c)
		for closed, want := range map[freshet.MountID]string{0: "content/root/f", 1: "subtree/root", 2: "content/root/f", 3: "content/root/f"} {
			c.closed = closed
			if _, err := e.Post(t.Context(), freshet.EventPost{Body: s3("b", "there/f"), Trusted: true}, secrets); err != nil {
				t.Error(err)
			}
			if got := c.marked(); got != want {
				t.Errorf("mount %d closed: marked %q, want %q", closed, got, want)
			}
		}
	})
}

func TestNothingPostedForTooLongDegradesAndMarksWhenItComesAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{places: map[freshet.MountID]ufs.Place{}}
		c.add("s3://b", "/", map[string]string{ufs.OptionEventsMaxSilence: "10m"})
		c.add("s3://patient", "/", nil)
		e := start(t, c)
		post := func() string {
			t.Helper()
			if _, err := e.Post(t.Context(), freshet.EventPost{Body: s3("b", "f"), Trusted: true}, secrets); err != nil {
				t.Error(err)
			}
			return c.marked()
		}
		heard := func(want bool) {
			t.Helper()
			if complete, ok := e.Heard(1, 1, 1); complete || ok != want {
				t.Errorf("complete %v, heard %v", complete, ok)
			}
			if _, ok := e.Heard(1, 1, 2); ok {
				t.Error("heard in another term")
			}
			if _, ok := e.Heard(2, 2, 1); !ok {
				t.Error("who sets no bound is not heard")
			}
		}
		heard(true)
		// Another leader may have waited in vain before this one began to count.
		for _, want := range []string{"content/f subtree/", "content/f"} {
			if got := post(); got != want {
				t.Errorf("marked %q, want %q", got, want)
			}
		}
		time.Sleep(10 * time.Minute)
		heard(true)
		time.Sleep(time.Second)
		heard(false)
		if st := e.Status(1, 1); !strings.Contains(st.Reason, "nothing was posted") || !strings.Contains(st.Reason, "10m") || st.Heard {
			t.Errorf("%+v", st)
		}
		if got := post(); got != "content/f subtree/" {
			t.Errorf("marked %q", got)
		}
		heard(true)
		if st := e.Status(1, 1); !st.Heard || st.SinceNotice != 0 {
			t.Errorf("%+v", st)
		}
	})
}

func TestHandshakesAndWhatCanNotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{places: map[freshet.MountID]ufs.Place{}}
		c.add("abfs://c@a", "/", nil)
		e := start(t, c)
		body := `[{"id":"1","eventType":"Microsoft.EventGrid.SubscriptionValidationEvent","topic":"t","subject":"","data":{"validationCode":"512d38b6"},"eventTime":"2026-11-05T10:11:12Z","dataVersion":"1"}]`
		a, err := e.Post(t.Context(), freshet.EventPost{Body: []byte(body), Trusted: true}, secrets)
		if err != nil || a.Validation != "512d38b6" {
			t.Errorf("%+v, %v", a, err)
		}
		body = strings.Replace(string(s3("b", "f")), `"bucket":{"name":"b"},`, "", 1)
		a, err = e.Post(t.Context(), freshet.EventPost{Body: []byte(body), Trusted: true}, secrets)
		if got := c.marked(); err != nil || a.Unread != 1 || got != "subtree/" {
			t.Errorf("%+v, %q, %v", a, got, err)
		}
	})
}

// TestAMountThatAnEarlierLeaderDidNotCoverIsMarked begins to watch from a cursor
// that one of two mounts is not covered by.
func TestAMountThatAnEarlierLeaderDidNotCoverIsMarked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{places: map[freshet.MountID]ufs.Place{}, watched: true, cursor: namespace.WatchCursor{Source: "quiet", Cursor: []byte("now"), Covers: []uint64{1}}}
		c.add("quiet://b", "/old", nil)
		c.add("quiet://b", "/new", nil)
		e := start(t, c)
		hint := c.hints[len(c.hints)-1]
		if got := c.marked(); got != "subtree/new" {
			t.Errorf("marked %q", got)
		}
		if string(hint.Cursor) != "thennow" || hint.Source != "quiet" || !slices.Equal(hint.Covers, []uint64{1, 2}) {
			t.Errorf("kept %+v", hint)
		}
		// What happened since the cursor may still be told: a greeting is no proof.
		if _, ok := e.Heard(1, 1, 1); ok {
			t.Error("heard at once")
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		for id := range freshet.MountID(2) {
			if complete, ok := e.Heard(id+1, uint64(id+1), 1); !complete || !ok {
				t.Errorf("mount %d: complete %v, heard %v", id+1, complete, ok)
			}
			if complete, ok := e.Heard(id+1, uint64(id+3), 1); complete || ok {
				t.Errorf("mount %d is heard before anybody listens for what it was changed to", id+1)
			}
		}
	})
}

// An entry of the log that is too large is refused, each time that it is told.
func TestManyLongNamesFitIntoTheLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{places: map[freshet.MountID]ufs.Place{}, watched: true, cursor: namespace.WatchCursor{Source: "quiet", Cursor: []byte("now"), Covers: []uint64{1}}}
		long := strings.Repeat("/"+strings.Repeat("x", 254), 16)[:4080]
		for i := range 1000 {
			name := fmt.Sprintf("%s/%03d", long, i)
			c.tells = append(c.tells, invalidation.Record{Kind: invalidation.KindRename, Recursive: true, Key: name, Key2: name + "-to"})
		}
		c.add("quiet://b", "/", nil)
		start(t, c)
		c.mu.Lock()
		defer c.mu.Unlock()
		if last := c.hints[len(c.hints)-1]; string(last.Cursor) != "thennow" {
			t.Errorf("the cursor is %q", last.Cursor)
		}
		n := 0
		for _, h := range c.hints {
			n += len(h.Records)
		}
		if n != 1000 || c.largest > 2<<20 {
			t.Errorf("%d records, %d bytes at once; the log takes 4 MiB", n, c.largest)
		}
	})
}

// FuzzChanges hands an engine notices of any form: what it marks is canonical, and
// covers what was named.
func FuzzChanges(f *testing.F) {
	for _, key := range []string{"/", "", "/a/b", "a", "/a//b", "/a/../b", "/a/b/", "//", "/\x00", "/a\xff/b", "/.freshet..x/y"} {
		f.Add(byte(1), key, "/t/"+key, false)
		f.Add(byte(5), key, "", true)
		f.Add(byte(99), key, key, false)
	}
	f.Fuzz(func(t *testing.T, kind byte, key, key2 string, recursive bool) {
		in := invalidation.Record{Kind: invalidation.Kind(kind), Key: key, Key2: key2, Recursive: recursive}
		out := activesync.Canonical(in)
		for given, got := range map[string]string{in.Key: out.Key, in.Key2: out.Key2} {
			if got == "" && given == in.Key2 && in.Key2 == "" {
				continue
			}
			if p, err := freshet.ParsePath(got); err != nil || string(p) != got {
				t.Errorf("%q became %q: %v", given, got, err)
			}
			if given != got && !out.Recursive {
				t.Errorf("%q became %q, and not all below it is marked", given, got)
			}
			if given != got && !strings.HasPrefix("/"+strings.TrimPrefix(given, "/")+"/", strings.TrimSuffix(got, "/")+"/") && got != "/" {
				t.Errorf("%q is not below %q", given, got)
			}
		}
		if out.Kind == 0 || out.Kind > invalidation.KindAll {
			t.Errorf("kind %d", out.Kind)
		}
	})
}
