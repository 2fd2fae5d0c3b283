package inotify_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	hadoopv1 "github.com/freshet-io/freshet/proto/hadoop/v1"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/hdfs/inotify"
)

func source(n *nameNode) *inotify.Source {
	return inotify.New(inotify.Options{Addrs: []string{"nn1:8020"}, User: "hdfs", Dial: n.dial})
}

// listener reads notices one by one.
type listener struct {
	t    *testing.T
	next func() (ufs.Notice, error, bool)
	stop func()
}

func listen(t *testing.T, s *inotify.Source, since []byte) *listener {
	t.Helper()
	next, stop := iter.Pull2(s.Watch(t.Context(), since))
	t.Cleanup(stop)
	return &listener{t: t, next: next, stop: stop}
}

func (l *listener) notice() ufs.Notice {
	l.t.Helper()
	n, err, ok := l.next()
	if err != nil || !ok {
		l.t.Fatalf("no notice: %v, %v", err, ok)
	}
	return n
}

func (l *listener) failure() error {
	l.t.Helper()
	for range 100 {
		n, err, ok := l.next()
		if !ok {
			l.t.Fatal("ended without an error")
		}
		if err != nil {
			if _, _, more := l.next(); more {
				l.t.Error("goes on after an error")
			}
			return err
		}
		if n.Gap != "" || len(n.Changes) > 0 {
			l.t.Errorf("unexpected notice %+v", n)
		}
	}
	l.t.Fatal("goes on without an error")
	return nil
}

func bubble(t *testing.T, name string, f func(t *testing.T, n *nameNode)) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			n := newNameNode()
			defer n.cut()
			f(t, n)
		})
	})
}

func TestTranslation(t *testing.T) {
	t.Parallel()
	tmp := "/d/" + ufs.TempPrefix + "x"
	rows := []struct {
		name  string
		event *hadoopv1.Event
		want  []invalidation.Record
		gap   string
	}{
		{name: "file", event: created("/d/f", 0), want: []invalidation.Record{{Kind: invalidation.KindCreate, Key: "/d/f"}}},
		{name: "directory", event: created("/d", 1), want: []invalidation.Record{{Kind: invalidation.KindMkdir, Key: "/d"}}},
		{name: "link", event: created("/l", 2), want: []invalidation.Record{{Kind: invalidation.KindCreate, Key: "/l"}}},
		{
			name:  "overwritten",
			event: event(0, &hadoopv1.CreateEvent{Type: new(uint32(0)), Path: new("/f"), Overwrite: new(true)}),
			want:  []invalidation.Record{{Kind: invalidation.KindContent, Key: "/f"}},
		},
		{name: "close", event: closed("/d/ä %+"), want: []invalidation.Record{{Kind: invalidation.KindContent, Key: "/d/ä %+"}}},
		{name: "append", event: event(2, &hadoopv1.AppendEvent{Path: new("/f")}), want: []invalidation.Record{{Kind: invalidation.KindContent, Key: "/f"}}},
		{name: "truncate", event: event(6, &hadoopv1.CloseEvent{Path: new("/f")}), want: []invalidation.Record{{Kind: invalidation.KindContent, Key: "/f"}}},
		{name: "unlink", event: event(5, &hadoopv1.UnlinkEvent{Path: new("/d")}), want: []invalidation.Record{{Kind: invalidation.KindDelete, Key: "/d", Recursive: true}}},
		{name: "rename", event: renamed("/a", "/b"), want: []invalidation.Record{{Kind: invalidation.KindRename, Key: "/a", Key2: "/b", Recursive: true}}},
		{name: "trash", event: renamed("/a", "/user/u/.Trash/Current/a"), want: []invalidation.Record{{Kind: invalidation.KindRename, Key: "/a", Key2: "/user/u/.Trash/Current/a", Recursive: true}}},
		{name: "owner", event: changed("/f", 2, 0), want: []invalidation.Record{{Kind: invalidation.KindMeta, Key: "/f"}}},
		{name: "mode of the root", event: changed("/", 3, 0), want: []invalidation.Record{{Kind: invalidation.KindMeta, Key: "/"}}},
		{name: "mtime", event: changed("/f", 0, 5), want: []invalidation.Record{{Kind: invalidation.KindMeta, Key: "/f"}}},
		{name: "atime only", event: changed("/f", 0, -1)},
		{name: "own temporary file", event: created(tmp, 0)},
		{name: "closed temporary file", event: closed(tmp)},
		{name: "below a temporary directory", event: closed(tmp + "/f")},
		{name: "published", event: renamed(tmp, "/d/f"), want: []invalidation.Record{{Kind: invalidation.KindContent, Key: "/d/f", Recursive: true}}},
		{name: "put aside", event: renamed("/d/f", tmp), want: []invalidation.Record{{Kind: invalidation.KindDelete, Key: "/d/f", Recursive: true}}},
		{name: "temporary to temporary", event: renamed(tmp, tmp+"y")},
		{name: "new type", event: event(7, &hadoopv1.CloseEvent{Path: new("/f")}), gap: "type 7"},
		{name: "no type", event: &hadoopv1.Event{}, gap: "no type"},
		{name: "garbage", event: &hadoopv1.Event{Type: new(uint32(1)), Contents: []byte{0xff}}, gap: "not understood"},
		{name: "no path", event: closed(""), gap: "not absolute"},
		{name: "relative path", event: closed("f"), gap: "not absolute"},
		{name: "path that is no text", event: closed("/\xff"), gap: "not absolute"},
		{name: "half a rename", event: renamed("/a", ""), gap: "not absolute"},
	}
	for _, row := range rows {
		bubble(t, row.name, func(t *testing.T, n *nameNode) {
			l := listen(t, source(n), nil)
			l.notice()
			n.add(row.event)
			n.add(closed("/marker"))
			got := l.notice()
			want := append(row.want, invalidation.Record{Kind: invalidation.KindContent, Key: "/marker"}) //nolint:gocritic // a copy
			if !slices.EqualFunc(got.Changes, want, sameRecord) {
				t.Errorf("got %+v, want %+v", got.Changes, want)
			}
			if (got.Gap == "") != (row.gap == "") || !strings.Contains(got.Gap, row.gap) {
				t.Errorf("gap %q, want %q", got.Gap, row.gap)
			}
		})
	}
}

func sameRecord(a, b invalidation.Record) bool {
	return a.Kind == b.Kind && a.Key == b.Key && a.Key2 == b.Key2 && a.Recursive == b.Recursive && a.Seq == 0 && !a.Fingerprint.Known()
}

func TestFirstNoticeAndHeartbeat(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, n *nameNode) {
		start := time.Now()
		l := listen(t, source(n), nil)
		first := l.notice()
		if len(first.Changes) != 0 || first.Gap != "" || len(first.Cursor) == 0 || time.Since(start) > 0 {
			t.Errorf("first notice %+v after %v", first, time.Since(start))
		}
		if caught := l.notice(); len(caught.Changes) != 0 || caught.Gap != "" || time.Since(start) > 20*time.Millisecond {
			t.Errorf("second notice %+v after %v", caught, time.Since(start))
		}
		n.add() // a transaction without events
		for range 10 {
			start := time.Now()
			beat := l.notice()
			if d := time.Since(start); len(beat.Changes) != 0 || beat.Gap != "" || d < 4*time.Second || d > 10*time.Second {
				t.Errorf("heartbeat %+v after %v", beat, d)
			}
		}
		// Even an idle minute does not make it slower than a second.
		n.add(closed("/f"))
		start = time.Now()
		if got := l.notice(); len(got.Changes) != 1 || time.Since(start) > time.Second {
			t.Errorf("after an idle minute: %+v after %v", got, time.Since(start))
		}
		n.add(closed("/g"))
		start = time.Now()
		if got := l.notice(); len(got.Changes) != 1 || time.Since(start) > 20*time.Millisecond {
			t.Errorf("soon after a change: %+v after %v", got, time.Since(start))
		}
		if got := slices.Compact(n.users); !slices.Equal(got, []string{"hdfs"}) {
			t.Errorf("asked as %q", got)
		}
	})
}

// seen makes a history, hears all of it and returns the cursor after it.
func seen(t *testing.T, n *nameNode, paths ...string) []byte {
	t.Helper()
	l := listen(t, source(n), nil)
	cursor := l.notice().Cursor
	for _, p := range paths {
		n.add(closed(p))
		cursor = l.notice().Cursor
	}
	l.stop()
	return cursor
}

func TestResume(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name   string
		change func(n *nameNode)
		paths  []string // told
		gap    string
		first  bool // the gap is in the first notice
	}{
		{name: "nothing happened", change: func(*nameNode) {}},
		{name: "went on", change: func(n *nameNode) { n.add(closed("/c")) }, paths: []string{"/c"}},
		{name: "reconnected", change: func(n *nameNode) { n.cut(); n.add(closed("/c")) }, paths: []string{"/c"}},
		{name: "what was told is purged", change: func(n *nameNode) { n.add(closed("/c")); n.purge(n.last) }, paths: []string{"/c"}},
		{
			name: "what follows is purged", gap: "no edits from transaction 4", paths: []string{"/d"},
			change: func(n *nameNode) { n.add(closed("/c")); n.add(closed("/d")); n.purge(n.last) },
		},
		{
			name: "purged, and nothing with an event after it", gap: "no edits from transaction 4",
			change: func(n *nameNode) { n.add(closed("/c")); n.add(); n.purge(n.last) },
		},
		{name: "formatted", gap: "another one", change: func(n *nameNode) { n.pool, n.log, n.last = "BP-2", nil, 1 }},
		{
			name: "formatted and already beyond", gap: "another one",
			change: func(n *nameNode) { n.pool, n.log, n.last = "BP-2", nil, 100 },
		},
		{name: "rolled back", gap: "went back from transaction 3 to 2", change: func(n *nameNode) { n.log, n.last = nil, 1 }},
		{
			name: "rolled back and already beyond", gap: "transaction 3 is another change",
			change: func(n *nameNode) {
				n.log, n.last = n.log[:1], 2
				n.add(closed("/other"))
				n.add(closed("/more"))
			},
		},
	}
	for _, row := range rows {
		bubble(t, row.name, func(t *testing.T, n *nameNode) {
			cursor := seen(t, n, "/a", "/b")
			row.change(n)
			l := listen(t, source(n), cursor)
			n.add(closed("/end"))
			var got []string
			gap := ""
			for !slices.Contains(got, "/end") {
				notice := l.notice()
				gap += notice.Gap
				for _, r := range notice.Changes {
					got = append(got, r.Key)
				}
				// A change can't come before the gap that it may belong to.
				if gap == "" && row.gap != "" {
					t.Errorf("%v before the gap", got)
				}
				if strings.Contains(gap, "another") || strings.Contains(gap, "back") {
					n.add(closed("/end")) // the first is part of the gap
				}
			}
			if (gap == "") != (row.gap == "") || !strings.Contains(gap, row.gap) {
				t.Errorf("gap %q, want %q", gap, row.gap)
			}
			if want := append(slices.Clone(row.paths), "/end"); !slices.Equal(got, want) {
				t.Errorf("told %q, want %q", got, want)
			}
		})
	}
}

func TestRewindWhileConnected(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, n *nameNode) {
		l := listen(t, source(n), nil)
		l.notice()
		n.add(closed("/a"))
		l.notice()
		n.set(func(n *nameNode) { n.log, n.last = nil, 1 })
		if got := l.notice(); !strings.Contains(got.Gap, "went back") {
			t.Errorf("got %+v, want a gap", got)
		}
		n.add(closed("/b"))
		if got := l.notice(); got.Gap != "" || len(got.Changes) != 1 {
			t.Errorf("after the gap: %+v", got)
		}
	})
}

func TestUnreadableCursor(t *testing.T) {
	t.Parallel()
	for name, cursor := range map[string][]byte{
		"empty": {}, "foreign": []byte("some other storage's position, which is long enough"), "short": {1, 2, 3},
		"negative": append([]byte{1}, bytes.Repeat([]byte{0xff}, 40)...), "long": append([]byte{1}, make([]byte, 5000)...),
	} {
		bubble(t, name, func(t *testing.T, n *nameNode) {
			l := listen(t, source(n), cursor)
			if got := l.notice(); !strings.Contains(got.Gap, "not one of HDFS") {
				t.Errorf("got %+v, want a gap", got)
			}
			n.add(closed("/a"))
			if got := l.notice(); got.Gap != "" || len(got.Changes) != 1 {
				t.Errorf("after the gap: %+v", got)
			}
		})
	}
}

// An empty notice after the first one says that all that happened before the
// watch was told: it must not come earlier, and soon then.
func TestBacklogBeforeSilence(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, n *nameNode) {
		cursor := seen(t, n, "/a")
		n.set(func(n *nameNode) { n.perCall = 1 })
		for range 5 {
			n.add()
			n.add(closed("/b"))
			n.add(closed("/d/" + ufs.TempPrefix + "x"))
			n.add(closed("/c"))
		}
		n.add()
		l := listen(t, source(n), cursor)
		start := time.Now()
		for i := range 10 {
			if got := l.notice(); len(got.Changes) != 1 || !got.Changes[0].PublishedAt.Equal(time.UnixMilli(1700000000123)) {
				t.Errorf("notice %d: %+v", i, got)
			}
		}
		if got := l.notice(); len(got.Changes) != 0 || time.Since(start) > 20*time.Millisecond {
			t.Errorf("at the end %+v after %v", got, time.Since(start))
		}
	})
}

func TestNoticeIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, n *nameNode) {
		l := listen(t, source(n), nil)
		start := l.notice().Cursor
		var many []*hadoopv1.Event
		total := 2*inotify.MaxRecords + 500
		for i := range total {
			many = append(many, closed(fmt.Sprintf("/f%d", i)))
		}
		n.set(func(n *nameNode) { n.perCall = 10 }) // a transaction is never divided
		n.add(many...)
		n.add(closed("/end"))
		told := map[string]bool{}
		for range 3 {
			before := len(told)
			notice := l.notice()
			for _, r := range notice.Changes {
				told[r.Key] = true
			}
			if got := len(told) - before; got > inotify.MaxRecords || len(notice.Changes) != got {
				t.Errorf("%d records in a notice", len(notice.Changes))
			}
			if half := len(told) < total; half != bytes.Equal(notice.Cursor, start) {
				t.Errorf("after %d of %d the cursor has moved: %v", len(told), total, !half)
			}
		}
		if len(told) != total {
			t.Errorf("%d told, want %d", len(told), total)
		}
		if got := l.notice(); len(got.Changes) != 1 || got.Changes[0].Key != "/end" {
			t.Errorf("then %+v", got)
		}
	})
}

func TestSameMarkOncePerNotice(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, n *nameNode) {
		l := listen(t, source(n), nil)
		l.notice()
		n.add(changed("/f", 2, 0), closed("/f"), created("/f", 0), closed("/f"), renamed("/a", "/b"), renamed("/a", "/b"), renamed("/b", "/a"))
		got := l.notice().Changes
		want := []invalidation.Record{
			{Kind: invalidation.KindCreate, Key: "/f"},
			{Kind: invalidation.KindRename, Key: "/a", Key2: "/b", Recursive: true},
			{Kind: invalidation.KindRename, Key: "/b", Key2: "/a", Recursive: true},
		}
		if !slices.EqualFunc(got, want, sameRecord) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func TestStuckIsNotSilence(t *testing.T) {
	t.Parallel()
	bubble(t, "", func(t *testing.T, n *nameNode) {
		l := listen(t, source(n), nil)
		l.notice()
		n.set(func(n *nameNode) { n.unread = true })
		n.add(closed("/f"))
		start := time.Now()
		_, err, _ := l.next()
		if freshet.KindOf(err) != freshet.KindUnavailable || time.Since(start) > 30*time.Second {
			t.Errorf("%v after %v, want unavailable and no heartbeat before", err, time.Since(start))
		}
	})
}

func TestPromptEnd(t *testing.T) {
	t.Parallel()
	for _, silent := range []bool{false, true} {
		bubble(t, fmt.Sprintf("silent=%v", silent), func(t *testing.T, n *nameNode) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			// Silent: in the middle of a call. Otherwise: between two polls.
			var once bool
			ended := make(chan error, 1)
			go func() {
				for _, err := range source(n).Watch(ctx, nil) {
					once = true
					if err != nil {
						ended <- err
					}
				}
				close(ended)
			}()
			time.Sleep(20 * time.Second) // of the bubble: every goroutine waits by then
			n.set(func(n *nameNode) { n.silent = silent })
			time.Sleep(5 * time.Second)
			start := time.Now()
			cancel()
			err := <-ended
			if !errors.Is(err, context.Canceled) || freshet.KindOf(err) != freshet.KindDeadline || time.Since(start) > 0 || !once {
				t.Errorf("%v after %v", err, time.Since(start))
			}
			if _, more := <-ended; more {
				t.Error("a second error")
			}
		})
	}
	bubble(t, "consumer", func(t *testing.T, n *nameNode) {
		for _, err := range source(n).Watch(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		synctest.Wait()
		if n.count("getEditsFromTxid") != 1 {
			t.Error("goes on after the consumer stopped")
		}
	})
}
