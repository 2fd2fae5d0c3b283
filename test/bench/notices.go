package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/cmd/freshet/fleet"
)

// teller is a storage whose changes by others are told to a region.
type teller struct {
	what, storage string
	options       map[string]string
	// tell posts what happened, for a storage that others must speak for.
	tell   func(ctx context.Context, f *fleet.Fleet, key string) error
	target string // for the median
}

func tellers() []teller {
	return []teller{
		{what: "local by inotify", storage: "local", options: map[string]string{"events": "inotify"}},
		{what: "hdfs by its edit log", storage: "hdfs", target: "p50 ≤ 150 ms"},
		{what: "s3 by an SQS queue", storage: "sqs", target: "p50 ≤ 300 ms"},
		{
			what: "s3 by the webhook", storage: "s3", target: "p50 ≤ 300 ms", tell: post,
			options: map[string]string{"events": "webhook", "events_token": "env:" + hookEnv},
		},
	}
}

const (
	hookEnv   = "FRESHET_BENCH_HOOK"
	hookToken = "bench-secret"
)

// notices measures from the change by another client, as acknowledged by the storage,
// to its being seen in a region that never looks by itself.
func (b *bench) notices(ctx context.Context) error {
	for _, t := range tellers() {
		if err := b.notice(ctx, t); err != nil {
			return fmt.Errorf("%s: %w", t.what, err)
		}
	}
	return nil
}

func (b *bench) notice(ctx context.Context, t teller) (err error) {
	p, err := b.start(ctx, t.storage)
	if p == nil || err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.stop()) }()
	if p.options == nil {
		p.options = map[string]string{}
	}
	maps.Copy(p.options, t.options)
	p.env = append(p.env, hookEnv+"="+hookToken)
	f, s, err := b.region(ctx, "notice-"+t.storage, p)
	if err != nil {
		return err
	}
	defer f.Close()
	defer func() { _ = s.Close() }() // nothing to be done about it
	change, err := p.mount(true).Change("api")
	if err != nil {
		return err
	}
	if _, err := s.AddMount(ctx, change); err != nil {
		return err
	}
	if err := fleet.Poll(ctx, 30*time.Second, "the source to be heard", func(ctx context.Context) error {
		m, _, err := s.Mounts(ctx, "/m")
		if err == nil && (len(m) != 1 || m[0].ActiveSync == nil || !m[0].ActiveSync.Heard) {
			err = fmt.Errorf("mounts: %+v", m)
		}
		return err
	}); err != nil {
		return err
	}
	var took []time.Duration
	for round := range b.noticeRounds + 1 {
		d, err := b.changed(ctx, t, p, f, s, round)
		if err != nil {
			return err
		}
		if round > 0 { // the first makes the file
			took = append(took, d)
		}
		if err := wait(ctx, rand.N(b.pause+1)); err != nil { //nolint:gosec // no secret
			return err
		}
	}
	slices.Sort(took)
	b.under("", "target")
	b.add(fmt.Sprintf("changed by another client → seen in the region, %s, %d changes, up to %s apart", t.what, len(took), b.pause),
		fmt.Sprintf("p50 %s, p99 %s, max %s", millis(percentile(took, 0.5)), millis(percentile(took, 0.99)), millis(took[len(took)-1])), t.target, "")
	return nil
}

// changed changes a file in the storage and returns how long the region took.
func (b *bench) changed(ctx context.Context, t teller, p *place, f *fleet.Fleet, s *fleet.Session, round int) (time.Duration, error) {
	const key = "d/f"
	length := 1000 + round // tells the versions apart
	if err := p.rival.put(ctx, key, []byte(strings.Repeat("x", length))); err != nil {
		return 0, err
	}
	acked := time.Now()
	if t.tell != nil {
		if err := t.tell(ctx, f, key); err != nil {
			return 0, err
		}
	}
	for {
		st, err := s.Stat(ctx, "/m/"+key, freshet.ReadOptions{})
		took := time.Since(acked)
		switch {
		case err == nil && st.Info.Length == int64(length):
			return took, nil
		case err != nil && freshet.KindOf(err) != freshet.KindNotExist:
			return 0, err
		case took > time.Minute:
			return 0, fmt.Errorf("change %d was not seen for a minute: %+v, %w", round, st, err)
		}
		if err := wait(ctx, time.Millisecond); err != nil {
			return 0, err
		}
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// post tells the region of a change in the form of S3.
func post(ctx context.Context, f *fleet.Fleet, key string) error {
	body := fmt.Sprintf(`{"Records":[{"eventVersion":"2.1","eventSource":"aws:s3","eventName":"ObjectCreated:Put","eventTime":%q,"s3":{"bucket":{"name":%q},"object":{"key":%q}}}]}`,
		time.Now().UTC().Format("2006-01-02T15:04:05.000Z"), benchBucket, url.QueryEscape(key))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+f.Clusters[0].HTTP[0]+"/v1/events", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+hookToken)
	r, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	if err := r.Body.Close(); err != nil || r.StatusCode != http.StatusOK {
		return fmt.Errorf("the webhook answered %s: %w", r.Status, err)
	}
	return nil
}
