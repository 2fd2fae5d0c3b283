package region_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/config"
	"github.com/freshet-io/freshet/test/e2e"
)

const interval = 2 * time.Second

func TestTimeBasedSync(t *testing.T) {
	// Without repetitions of the driver's own, so that failures come soon.
	w := e2e.NewS3World(t, e2e.Options{
		Lone: true, Coordinators: 1, Nodes: 1, Mount: func(_ string, m *config.Mount) { m.Options["retries"] = "0" },
	})
	hot := string(w.A.At("hot"))
	w.A.CLI(t, "sync", "set", hot, "--interval", interval.String()).Want(t, 0)
	w.A.CLI(t, "sync", "set", hot+"/never", "--interval", "never").Want(t, 0)
	w.A.CLI(t, "sync", "set", hot+"/always", "--interval", "always").Want(t, 0)
	for _, c := range []struct {
		name string
		test func(t *testing.T, w *e2e.World)
	}{
		{"a change is found after the interval and not before", foundAfterInterval},
		{"a listing too", listingAfterInterval},
		{"always", always},
		{"never, but by a request's own interval", override},
		{"a failed sync is no answer", failedSync},
		{"sync now", syncNow},
		{"intervals change at run time", atRunTime},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, w) })
	}
}

func outside(t *testing.T, w *e2e.World, name, data string) {
	t.Helper()
	if err := w.Storage.Put(t.Context(), "x/"+name, []byte(data)); err != nil {
		t.Fatal(err)
	}
}

// under reads a file under an interval of the request's own.
func under(ctx context.Context, r *e2e.Region, name string, i freshet.Interval) (string, error) {
	data, _, err := r.Read(ctx, name, client.ReadOptions{ReadOptions: freshet.ReadOptions{SyncInterval: &i}, Length: -1})
	return string(data), err
}

func shows(r *e2e.Region, name, want string) func(ctx context.Context) error {
	return func(ctx context.Context) error {
		data, _, err := r.Read(ctx, name, client.Whole())
		if err == nil && string(data) != want {
			err = fmt.Errorf("%s has %q, not %q", name, data, want)
		}
		return err
	}
}

// notBefore waits for check and fails if that took less than the interval since
// begun, or much longer.
func notBefore(t *testing.T, begun time.Time, check func(ctx context.Context) error) {
	t.Helper()
	if err := fleet.Poll(t.Context(), e2e.Patience, "the change", check); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	if took < interval || took > interval+10*time.Second {
		t.Errorf("found %s after the last check, under an interval of %s", took, interval)
	}
	t.Logf("found %s after the last check, under an interval of %s", took.Round(time.Millisecond), interval)
}

func foundAfterInterval(t *testing.T, w *e2e.World) {
	outside(t, w, "hot/f", "old")
	begun := time.Now()
	if data, err := under(t.Context(), w.A, "hot/f", freshet.Always); err != nil || data != "old" {
		t.Fatalf("%q, %v", data, err)
	}
	outside(t, w, "hot/f", "new, by somebody else")
	notBefore(t, begun, shows(w.A, "hot/f", "new, by somebody else"))
}

func listingAfterInterval(t *testing.T, w *e2e.World) {
	outside(t, w, "hot/dir/a", "a")
	outside(t, w, "hot/dir/b", "b")
	names := func(ctx context.Context, i *freshet.Interval) (string, error) {
		page, err := w.A.S.List(ctx, freshet.ListQuery{Path: w.A.At("hot/dir"), Options: freshet.ReadOptions{SyncInterval: i}})
		var out bytes.Buffer
		for _, e := range page.Entries {
			out.WriteString(e.Path.Base())
		}
		return out.String(), err
	}
	always := freshet.Always
	begun := time.Now()
	if got, err := names(t.Context(), &always); err != nil || got != "ab" {
		t.Fatalf("%q, %v", got, err)
	}
	outside(t, w, "hot/dir/c", "c")
	if err := w.Storage.Delete(t.Context(), "x/hot/dir/a"); err != nil {
		t.Fatal(err)
	}
	notBefore(t, begun, func(ctx context.Context) error {
		got, err := names(ctx, nil)
		if err == nil && got != "bc" {
			err = fmt.Errorf("listing %q", got)
		}
		return err
	})
	_, err := w.A.S.Stat(t.Context(), w.A.At("hot/dir/a"), freshet.ReadOptions{})
	if !freshet.IsKind(err, freshet.KindNotExist) {
		t.Errorf("the deleted file: %v", err)
	}
}

func always(t *testing.T, w *e2e.World) {
	for i := range 5 {
		want := fmt.Sprintf("version %d", i)
		outside(t, w, "hot/always/f", want)
		if err := shows(w.A, "hot/always/f", want)(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func override(t *testing.T, w *e2e.World) {
	outside(t, w, "hot/never/f", "old")
	if err := shows(w.A, "hot/never/f", "old")(t.Context()); err != nil {
		t.Fatal(err)
	}
	outside(t, w, "hot/never/f", "new")
	// As long as a sibling under the interval needs to be found, this one is not.
	outside(t, w, "hot/g", "old")
	begun := time.Now()
	if _, err := under(t.Context(), w.A, "hot/g", freshet.Always); err != nil {
		t.Fatal(err)
	}
	outside(t, w, "hot/g", "new")
	notBefore(t, begun, shows(w.A, "hot/g", "new"))
	if err := shows(w.A, "hot/never/f", "old")(t.Context()); err != nil {
		t.Error(err)
	}
	w.A.CLI(t, "explain", "--check", string(w.A.At("hot/never/f"))).Want(t, freshet.ExitUnhealthy, "another version")
	if data, err := under(t.Context(), w.A, "hot/never/f", freshet.Interval(time.Hour)); err != nil || data != "old" {
		t.Errorf("under an hour: %q, %v", data, err)
	}
	w.A.CLI(t, "fs", "cat", "--sync-interval", "always", string(w.A.At("hot/never/f"))).Want(t, 0, "new")
	if err := shows(w.A, "hot/never/f", "new")(t.Context()); err != nil {
		t.Error(err)
	}
}

func failedSync(t *testing.T, w *e2e.World) {
	outside(t, w, "hot/down", "old")
	if _, err := under(t.Context(), w.A, "hot/down", freshet.Always); err != nil {
		t.Fatal(err)
	}
	outside(t, w, "hot/down", "new")
	e2e.AwaitCached(t, w.A, "hot/never/f", int64(len("new"))) // a block is stored when its reader has it
	w.S3.Down()
	for _, name := range []string{"hot/down", "hot/nowhere/at/all"} {
		path := string(w.A.At(name))
		begun := time.Now()
		w.A.CLI(t, "fs", "test", "--sync-interval", "always", path).Want(t, freshet.ExitUnavailable)
		t.Logf("the command line said so after %s", time.Since(begun).Round(time.Millisecond))
		e2e.HTTP(t, "GET", "http://"+w.A.HTTP[0]+"/v1/status?sync_interval=always&path="+path, "").Want(t, 503, `"unavailable"`)
		e2e.HTTP(t, "GET", "http://"+w.A.NodeHTTP[0]+"/v1/data"+path+"?sync_interval=always", "").Want(t, 503, `"unavailable"`)
	}
	// What is fresh by its rule is served.
	if err := shows(w.A, "hot/never/f", "new")(t.Context()); err != nil {
		t.Error(err)
	}
	w.S3.Up()
	// The failures are no successes: the change is found at the next access after
	// the interval, counted from the last success.
	if err := fleet.Poll(t.Context(), e2e.Patience, "the change", shows(w.A, "hot/down", "new")); err != nil {
		t.Error(err)
	}
	_, err := w.A.S.Stat(t.Context(), w.A.At("hot/unknown"), freshet.ReadOptions{})
	if !freshet.IsKind(err, freshet.KindNotExist) {
		t.Errorf("what does not exist, once the storage can say so: %v", err)
	}
}

func syncNow(t *testing.T, w *e2e.World) {
	for i := range 5 {
		outside(t, w, fmt.Sprintf("hot/never/tree/d%d/f", i), "old")
	}
	if _, err := w.A.S.List(t.Context(), freshet.ListQuery{Path: w.A.At("hot/never/tree"), Recursive: true}); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		outside(t, w, fmt.Sprintf("hot/never/tree/d%d/f", i), "changed")
	}
	outside(t, w, "hot/never/tree/d5/f", "added")
	var done struct {
		Entries string `json:"entries"`
		Changed string `json:"changed"`
		Failed  string `json:"failed"`
		Done    bool   `json:"done"`
	}
	w.A.CLI(t, "sync", "now", "--recursive", "-o", "json", string(w.A.At("hot/never/tree"))).Want(t, 0).JSON(t, &done)
	if !done.Done || done.Failed != "0" || done.Changed == "0" || done.Entries == "0" {
		t.Errorf("the last report: %+v", done)
	}
	for i := range 6 {
		want := "changed"
		if i == 5 {
			want = "added"
		}
		if err := shows(w.A, fmt.Sprintf("hot/never/tree/d%d/f", i), want)(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

func atRunTime(t *testing.T, w *e2e.World) {
	outside(t, w, "run/f", "old")
	if err := shows(w.A, "run/f", "old")(t.Context()); err != nil {
		t.Fatal(err)
	}
	outside(t, w, "run/f", "new")
	if err := shows(w.A, "run/f", "old")(t.Context()); err != nil {
		t.Fatalf("under never: %v", err)
	}
	path := string(w.A.At("run"))
	body := fmt.Sprintf(`{"path":%q,"interval":"always"}`, path)
	e2e.HTTP(t, "PUT", "http://"+w.A.HTTP[0]+"/v1/sync-policies", body).Want(t, 200, "always")
	if err := shows(w.A, "run/f", "new")(t.Context()); err != nil {
		t.Errorf("under always: %v", err)
	}
	w.A.CLI(t, "sync", "get", path+"/f").Want(t, 0, "always", path)
	w.A.CLI(t, "sync", "unset", path).Want(t, 0, "never")
	w.A.CLI(t, "sync", "unset", path).Want(t, freshet.ExitNotFound)
}
