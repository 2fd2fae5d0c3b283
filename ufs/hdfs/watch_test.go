package hdfs_test

import (
	"context"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jcmturner/gokrb5/v8/keytab"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs"
)

func TestWatchTellsWhatOthersDo(t *testing.T) {
	r := newRoot(t, hdfstest.Shared(t))
	f := open(t, r.cluster.Addr(), r.dir, nil)
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	next, stop := iter.Pull2(f.Watch(ctx, nil))
	defer stop()
	told := func(key string) []invalidation.Record {
		t.Helper()
		var all []invalidation.Record
		for {
			n, err, _ := next()
			if err != nil {
				t.Fatal(err)
			}
			if n.Of != f.Place().Authority || n.Gap != "" {
				t.Errorf("notice %+v", n)
			}
			all = append(all, n.Changes...)
			if slices.ContainsFunc(n.Changes, func(r invalidation.Record) bool { return r.Key == key }) {
				return all
			}
		}
	}
	if n, err, _ := next(); err != nil || len(n.Changes) > 0 || n.Cursor == nil {
		t.Fatalf("first notice %+v, %v", n, err)
	}
	r.cluster.Dfs(t, "-mkdir", r.at("by others"))
	if all := told(r.at("by others")); len(all) != 1 {
		t.Errorf("%+v, want one record", all)
	}
	// Of our own write only the end is told.
	w, err := f.Create(ctx, "ours", ufs.CreateOptions{Size: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	all := told(r.at("ours"))
	if i := slices.IndexFunc(all, func(rec invalidation.Record) bool { return strings.Contains(rec.Key+rec.Key2, ufs.TempPrefix) }); i >= 0 {
		t.Errorf("temporary name in %+v", all[i])
	}
	// Mounts of other directories and domains understand it too.
	rec := all[len(all)-1]
	if got, ok := f.Place().Translate("/elsewhere", f.Place().Authority, rec); !ok || got.Key != "/elsewhere/ours" {
		t.Errorf("translated to %+v, %v", got, ok)
	}
}

func TestWatchSource(t *testing.T) {
	source := func(uri string, options map[string]string) (ufs.WatchSource, *hdfs.FS) {
		t.Helper()
		fs, err := hdfs.NewOpener(hdfs.Options{}).Open(ufs.Spec{URI: uri, Options: options}, environment())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { fs.Close() })
		own, _ := fs.(*hdfs.FS)
		src, err := ufs.WatcherOf(fs).WatchSource()
		if err != nil {
			t.Fatal(err)
		}
		return src, own
	}
	first, fs := source("hdfs://nn1:8020,nn2:8020/a", map[string]string{"user": "hdfs"})
	if !first.Complete || !strings.Contains(first.ID, "nn1:8020") {
		t.Errorf("source %+v", first)
	}
	if p, ok := ufs.PlaceOf(fs); !ok || p != (ufs.Place{Authority: "hdfs://nn1:8020,nn2:8020", Key: "/a"}) {
		t.Errorf("place %+v", p)
	}
	same, root := source("hdfs://nn2:8020,nn1:8020/", map[string]string{"user": "hdfs", "domain": "x", "domain_root": "/y"})
	if same != first {
		t.Errorf("%+v for another directory, %+v before", same, first)
	}
	if p := root.Place(); p.Key != "/" {
		t.Errorf("place of the root: %+v", p)
	}
	if other, _ := source("hdfs://nn1:8020,nn2:8020/a", map[string]string{"user": "bob"}); other.ID == first.ID {
		t.Error("one source for two users, of whom one may not be allowed")
	}
}

func TestNoWatchWithKerberos(t *testing.T) {
	dir := t.TempDir()
	keys := keytab.New()
	if err := keys.AddEntry("freshet", "EXAMPLE.COM", "secret", time.Unix(1, 0), 1, 18); err != nil {
		t.Fatal(err)
	}
	data, err := keys.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"keytab": data, "krb5.conf": []byte("[libdefaults]\ndefault_realm = EXAMPLE.COM\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	fs, err := hdfs.NewOpener(hdfs.Options{}).Open(ufs.Spec{URI: "hdfs://nn:8020/", Options: map[string]string{
		"kerberos_principal": "freshet", "kerberos_keytab": "file:" + filepath.Join(dir, "keytab"), "krb5_conf": filepath.Join(dir, "krb5.conf"),
	}}, environment())
	if err != nil {
		t.Fatal(err)
	}
	defer fs.Close()
	w := ufs.WatcherOf(fs)
	if _, err := w.WatchSource(); freshet.KindOf(err) != freshet.KindUnsupported || !strings.Contains(err.Error(), "sync interval") {
		t.Errorf("got %v", err)
	}
	for _, err := range w.Watch(t.Context(), nil) {
		if freshet.KindOf(err) != freshet.KindUnsupported {
			t.Errorf("got %v", err)
		}
	}
}
