package storages_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
	"github.com/freshet-io/freshet/test/e2e"
	"github.com/freshet-io/freshet/test/hdfstest"
	"github.com/freshet-io/freshet/test/sqstest"
)

// telling is a storage whose changes by others are told to a region.
type telling struct {
	*place

	// told is called after each change, for storages that others must speak for.
	told func(t *testing.T, s *telling, r *e2e.Region, key string, removed bool)
	// deafen makes the source silent, hear lets it speak again; nil where only a
	// restart of the region can.
	deafen, hear func(t *testing.T)
	deaf         string // what explain says then
}

func sources() map[string]func(t *testing.T) *telling {
	return map[string]func(t *testing.T) *telling{
		"inotify": func(t *testing.T) *telling {
			p := localPlace(t)
			p.options = map[string]string{"events": "inotify"}
			return &telling{place: p}
		},
		"hdfs": func(t *testing.T) *telling {
			c := hdfstest.Start(t, hdfstest.Options{})
			return &telling{
				place: hdfsPlaceOn(t, c), deaf: "hdfs://",
				deafen: func(t *testing.T) { c.StopNameNode(t) }, hear: func(t *testing.T) { c.StartNameNode(t) },
			}
		},
		"sqs": func(t *testing.T) *telling {
			srv := sqstest.Start(t)
			bucket := srv.NewBucket(t)
			queue, arn := srv.NewQueue(t)
			srv.Notify(t, bucket, arn)
			return &telling{
				place: &place{
					storage: e2e.BucketOf(srv.S3(), bucket), uri: "s3://" + bucket,
					options: map[string]string{"endpoint": srv.Endpoint(), "region": srv.Region(), "events": "sqs:" + queue, "request_timeout": "3s"},
					env:     []string{"AWS_ACCESS_KEY_ID=" + srv.AccessKey(), "AWS_SECRET_ACCESS_KEY=" + srv.SecretKey()},
				},
				deafen: func(t *testing.T) { srv.Pause(t) }, hear: func(t *testing.T) { srv.Resume(t) }, deaf: "sqs:",
			}
		},
		"webhook": func(t *testing.T) *telling {
			p := s3Place(t)
			p.options["events"], p.options["events_token"] = "webhook", "env:FRESHET_E2E_HOOK"
			p.env = append(p.env, "FRESHET_E2E_HOOK=hook-secret")
			return &telling{place: p, told: hook(s3Event)}
		},
		"eventgrid": func(t *testing.T) *telling {
			p := azurePlace(t)
			p.options["events"], p.options["events_token"] = "webhook", "env:FRESHET_E2E_HOOK"
			p.env = append(p.env, "FRESHET_E2E_HOOK=hook-secret")
			return &telling{place: p, told: hook(gridEvent)}
		},
		"pubsub": func(t *testing.T) *telling {
			p := gcsPlace(t)
			p.options["events"], p.options["events_token"] = "webhook", "env:FRESHET_E2E_HOOK"
			p.env = append(p.env, "FRESHET_E2E_HOOK=hook-secret")
			return &telling{place: p, told: hook(pubSubEvent)}
		},
	}
}

// hook returns what posts a change to a region in the form of a cloud.
func hook(form func(p *place, key string, removed bool) string) func(*testing.T, *telling, *e2e.Region, string, bool) {
	return func(t *testing.T, s *telling, r *e2e.Region, key string, removed bool) {
		t.Helper()
		body := form(s.place, key, removed)
		// Strangers are not let in.
		at := "http://" + r.HTTP[0] + "/v1/events"
		e2e.HTTP(t, http.MethodPost, at, body, "Authorization", "Bearer wrong").Want(t, http.StatusForbidden)
		e2e.HTTP(t, http.MethodPost, at, body, "Authorization", "Bearer hook-secret").Want(t, http.StatusOK, `"unread":0`)
	}
}

func s3Event(_ *place, key string, removed bool) string {
	event := "ObjectCreated:Put"
	if removed {
		event = "ObjectRemoved:Delete"
	}
	return fmt.Sprintf(`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":%q,"eventTime":"2026-11-05T10:11:12.000Z",
		"s3":{"bucket":{"name":"lake"},"object":{"key":%q}}}]}`, event, url.QueryEscape(key))
}

func gridEvent(p *place, key string, removed bool) string {
	event := "Microsoft.Storage.BlobCreated"
	if removed {
		event = "Microsoft.Storage.BlobDeleted"
	}
	container, account, _ := strings.Cut(strings.TrimPrefix(p.uri, "abfs://"), "@")
	return fmt.Sprintf(`[{"id":"1","eventType":%q,"eventTime":"2026-11-05T10:11:12Z","dataVersion":"","metadataVersion":"1",
		"topic":"/subscriptions/s/resourceGroups/g/providers/Microsoft.Storage/storageAccounts/%s",
		"subject":"/blobServices/default/containers/%s/blobs/%s","data":{"api":"PutBlob","url":"https://%s.blob.core.windows.net/%s/%s"}}]`,
		event, account, container, key, account, container, (&url.URL{Path: key}).EscapedPath())
}

func pubSubEvent(p *place, key string, removed bool) string {
	event := "OBJECT_FINALIZE"
	if removed {
		event = "OBJECT_DELETE"
	}
	return fmt.Sprintf(`{"subscription":"projects/p/subscriptions/s","message":{"messageId":"1","publishTime":"2026-11-05T10:11:12Z",
		"attributes":{"bucketId":%q,"objectId":%q,"eventType":%q,"payloadFormat":"NONE"}}}`, strings.TrimPrefix(p.uri, "gs://"), key, event)
}

// change changes the storage behind the region's back and waits until it is seen.
func (s *telling) change(t *testing.T, r *e2e.Region, name string, data []byte) {
	t.Helper()
	if err := s.storage.Put(t.Context(), name, data); err != nil {
		t.Fatal(err)
	}
	if s.told != nil {
		s.told(t, s, r, name, false)
	}
	e2e.Seen(t, name, e2e.Shows(r, name, data))
}

func TestChangesByOthersAreSeenWithoutAnyInterval(t *testing.T) {
	for name, start := range sources() {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			w := e2e.NewBareWorld(t, s.storage, s.env, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
			// Nothing but the notices may find a change.
			w.A.Mount(t, "/m", s.uri, s.options, "--active-sync", "--degraded-interval", "24h")
			heard(t, w.A)
			w.A.CLI(t, "mount", "show", "/m").Want(t, 0, "active sync")

			if err := e2e.Lacks(w.A, "d/f")(t.Context()); err != nil {
				t.Fatal(err)
			}
			for v := range uint64(4) {
				s.change(t, w.A, "d/f", e2e.Content("f", v, 3000))
			}
			s.change(t, w.A, "d/sp ace+%ü", []byte("odd"))
			e2e.Seen(t, "the listing", func(ctx context.Context) error { return e2e.Count(ctx, w.A, "d", 2) })
			if err := s.storage.Delete(t.Context(), "d/f"); err != nil {
				t.Fatal(err)
			}
			if s.told != nil {
				s.told(t, s, w.A, "d/f", true)
			}
			e2e.Seen(t, "the removal", e2e.Lacks(w.A, "d/f"))

			s.whileAway(t, w)
			if s.deafen != nil {
				s.whileDeaf(t, w)
			}
		})
	}
}

// heard waits until the mount says that its source is heard.
func heard(t *testing.T, r *e2e.Region) {
	t.Helper()
	e2e.Seen(t, "the source is heard", func(ctx context.Context) error {
		mounts, _, err := r.S.Mounts(ctx, r.Root)
		if err == nil && (len(mounts) != 1 || mounts[0].Degraded) {
			err = fmt.Errorf("mounts: %+v", mounts)
		}
		return err
	})
}

// whileAway: what changes while the coordinator is dead is seen when it is back.
func (s *telling) whileAway(t *testing.T, w *e2e.World) {
	data := e2e.Content("away", 2, 2000)
	s.change(t, w.A, "away", e2e.Content("away", 1, 2000))
	leader, err := w.A.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := leader.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.storage.Put(t.Context(), "away", data); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(leader.Start(), w.A.AwaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	if s.told != nil { // a sender repeats what was not accepted
		s.told(t, s, w.A, "away", false)
	}
	e2e.Seen(t, "a change while the region was down", e2e.Shows(w.A, "away", data))
}

// whileDeaf: a source that falls silent degrades the mount, which says so, and
// what changed meanwhile is seen when it speaks again.
func (s *telling) whileDeaf(t *testing.T, w *e2e.World) {
	s.change(t, w.A, "deaf", []byte("before"))
	heard(t, w.A)
	s.deafen(t)
	err := fleet.Poll(t.Context(), 2*e2e.Patience, "the mount to be degraded", func(ctx context.Context) error {
		mounts, _, err := w.A.S.Mounts(ctx, w.A.Root)
		if err == nil && (len(mounts) != 1 || !mounts[0].Degraded) {
			err = fmt.Errorf("mounts: %+v", mounts)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	said := w.A.CLI(t, "explain", "/m/deaf").Want(t, 0)
	if !strings.Contains(said.Out, s.deaf) || !strings.Contains(said.Out, "24h") {
		t.Errorf("explain says neither which source is silent nor what applies:\n%s", said.Out)
	}
	s.hear(t)
	err = fleet.Poll(t.Context(), e2e.Patience, "the storage to take a change", func(ctx context.Context) error {
		return s.storage.Put(ctx, "deaf", []byte("afterwards"))
	})
	if err != nil {
		t.Fatal(err)
	}
	e2e.Seen(t, "a change after the silence", e2e.Shows(w.A, "deaf", []byte("afterwards")))
	heard(t, w.A)
}

func TestActiveSyncNeedsASource(t *testing.T) {
	p := s3Place(t)
	w := e2e.NewBareWorld(t, p.storage, p.env, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
	args := []string{"mount", "add", "/m", p.uri, "--active-sync"}
	for name, value := range p.options {
		args = append(args, "--option", name+"="+value)
	}
	w.A.CLI(t, args...).Want(t, freshet.ExitUsage, "events=")
}

func TestAMountCanBeChangedWhileItsStorageIsAway(t *testing.T) {
	p := localPlace(t)
	dir := strings.TrimPrefix(p.uri, "file://")
	w := e2e.NewBareWorld(t, p.storage, nil, e2e.Options{Lone: true, Coordinators: 1, Nodes: 1})
	w.A.Mount(t, "/m", p.uri, p.with("events", "inotify"), "--active-sync")
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	w.A.CLI(t, "mount", "update", "/m", "--active-sync=false", "--read-only", "--degraded-interval", "5s").Want(t, 0)
	w.A.CLI(t, "mount", "update", "/m", "--active-sync").Want(t, freshet.ExitNotFound, dir)
	// A process that comes up without the storage says so.
	leader, err := w.A.Leader(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(leader.Kill(), leader.Start(), w.A.AwaitReady(t.Context())); err != nil {
		t.Fatal(err)
	}
	e2e.Seen(t, "the mount says what is wrong", func(ctx context.Context) error {
		mounts, _, err := w.A.S.Mounts(ctx, w.A.Root)
		if err == nil && (len(mounts) != 1 || !strings.Contains(mounts[0].DegradedReason, "can't be used")) {
			err = fmt.Errorf("mounts: %+v", mounts)
		}
		return err
	})
	w.A.CLI(t, "cluster", "status").Want(t, freshet.ExitUnhealthy, "mount /m can't be read or written")
	var shown struct {
		Mounts []struct {
			ReadOnly    bool
			Consistency struct{ ActiveSync bool }
		}
	}
	w.A.CLI(t, "mount", "ls", "-o", "json").Want(t, 0).JSON(t, &shown)
	if len(shown.Mounts) != 1 || !shown.Mounts[0].ReadOnly || shown.Mounts[0].Consistency.ActiveSync {
		t.Errorf("mounts: %+v", shown.Mounts)
	}
}
