package activesync

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"log/slog"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
)

const opPost = "take events"

// Post reads what somebody posted, marks what it names, and returns when the marks
// are replicated. Every mount of a storage that is named is marked, with or without
// active sync. The caller needs the token of each of them that has one; where none
// has, it must be trusted. Errors: KindInvalid for what can't be read,
// KindUnauthenticated without a token that is needed, KindPermission with a wrong
// one, and those of Propose.
func (e *Engine) Post(ctx context.Context, p freshet.EventPost, secret func(ufs.SecretRef) (ufs.Secret, error)) (freshet.EventAnswer, error) {
	mounts, _ := e.deps.Mounts()
	gate := gate{post: p, secret: secret, log: e.log}
	if err := gate.enter(mounts); err != nil { // before anything that costs more
		e.metrics.notices.WithLabelValues(kindPosted, "refused").Inc()
		return freshet.EventAnswer{}, err
	}
	msg, err := events.Parse(p.Body)
	if err != nil {
		return freshet.EventAnswer{}, freshet.Errorf(freshet.KindInvalid, opPost, "", "%w", err)
	}
	all := e.mounted(mounts)
	a := freshet.EventAnswer{Unread: msg.Unread, Validation: msg.Validation, Confirm: msg.Confirm}
	m := marks{}
	oldest := map[freshet.DomainID]time.Time{}
	for _, ev := range msg.Events {
		named := false
		for i := range all {
			u := &all[i]
			if u.hidden || !u.isOf(ev.Authority) {
				continue
			}
			if err := gate.pass(u); err != nil {
				e.metrics.notices.WithLabelValues(kindPosted, "refused").Inc()
				return freshet.EventAnswer{}, err
			}
			if m.changes(u, ev.Authority, []invalidation.Record{ev.Record}) > 0 {
				named = true
				if at, ok := oldest[u.Domain]; !ok || ev.Record.PublishedAt.Before(at) {
					oldest[u.Domain] = ev.Record.PublishedAt
				}
			}
		}
		if named {
			a.Marked++
		} else {
			a.Ignored++
		}
	}
	for i := range all {
		if u := &all[i]; u.hidden && len(msg.Events) > 0 && gate.pass(u) == nil {
			m.all(u) // any event may be of it
		}
	}
	if msg.Unread > 0 {
		e.log.Warn("posted events could not be made out: everything that listens to such is marked", "events", msg.Unread, "reason", msg.Why)
	}
	if msg.Confirm != "" {
		e.log.Info("a poster of events wants its subscription confirmed: open its address once, if you know it", "address", msg.Confirm)
	}
	return a, e.posted(ctx, m, oldest, &gate, msg.Unread > 0)
}

// mounted returns mounts with their places. One whose storage can't be opened now counts as of
// the storage that its URI names, unless its options hide that.
func (e *Engine) mounted(mounts []freshet.Mount) []user {
	all := make([]user, 0, len(mounts))
	for _, m := range mounts {
		fs, release, err := e.deps.Storage(m)
		if err != nil {
			all = append(all, closedUser(m))
			continue
		}
		all = append(all, newUser(m, fs))
		release()
	}
	return all
}

// posted replicates the marks of a post, and notes that it came. Where nothing had
// come for too long, or may not have before this term, or something can't be read, all that listens is marked.
func (e *Engine) posted(ctx context.Context, m marks, oldest map[freshet.DomainID]time.Time, g *gate, unread bool) error {
	e.posting.Lock()
	defer e.posting.Unlock()
	h := e.ears.Load()
	result := resultMarked
	if len(m) == 0 {
		result = resultIgnored
	}
	if h != nil {
		for i := range h.posted {
			u := &h.posted[i]
			_, heard := h.ears[u.ID].heard()
			_, named := oldest[u.Domain]
			if h.hooks[u.Domain].unproved(u.Mount) {
				heard = false
			}
			if (unread && g.pass(u) == nil) || (named && !heard) {
				m.all(u)
				e.metrics.gaps.WithLabelValues(kindPosted).Inc()
			}
		}
	}
	if err := m.commit(ctx, e, nil); err != nil {
		e.metrics.notices.WithLabelValues(kindPosted, "failed").Inc()
		return err
	}
	e.metrics.notices.WithLabelValues(kindPosted, result).Inc()
	if h != nil {
		for d, at := range oldest {
			if hook := h.hooks[d]; hook != nil {
				hook.heardNow(e, at)
			}
		}
	}
	return nil
}

// gate decides who may post for which mount.
type gate struct {
	post   freshet.EventPost
	secret func(ufs.SecretRef) (ufs.Secret, error)
	log    *slog.Logger
}

// enter lets a caller in that may post for any mount at all, so that strangers
// don't learn what is mounted.
func (g *gate) enter(mounts []freshet.Mount) error {
	if g.post.Trusted {
		return nil
	}
	for _, m := range mounts {
		if m.Options[ufs.OptionEventsToken] == "" {
			continue
		}
		err := g.pass(&user{Mount: m})
		if err == nil {
			return nil
		}
		if freshet.IsKind(err, freshet.KindUnavailable) { // for us to know, not for them
			g.log.Warn("nobody can post the events of a mount", "error", err)
		}
	}
	return g.refusal()
}

func (g *gate) refusal() error {
	if g.post.Token == "" {
		return freshet.Errorf(freshet.KindUnauthenticated, opPost, "", "send the token of the mount's option %s as Authorization: Bearer; without such an option only callers on this machine, or with a certificate of the cluster's authority, may post", ufs.OptionEventsToken)
	}
	return freshet.Errorf(freshet.KindPermission, opPost, "", "the bearer token is not that of the storage that the events are about")
}

// pass says why a caller may not post for a mount.
func (g *gate) pass(u *user) error {
	text := u.Options[ufs.OptionEventsToken]
	if text == "" {
		if g.post.Trusted {
			return nil
		}
		return g.refusal()
	}
	ref, err := ufs.ParseSecretRef(text)
	if err == nil {
		var want ufs.Secret
		if want, err = g.secret(ref); err == nil {
			got, have := sha256.Sum256([]byte(g.post.Token)), sha256.Sum256([]byte(want.Reveal()))
			if subtle.ConstantTimeCompare(got[:], have[:]) == 1 {
				return nil
			}
			return g.refusal()
		}
	}
	return freshet.Errorf(freshet.KindUnavailable, opPost, u.Path, "option %s of the mount can't be read: %w", ufs.OptionEventsToken, err)
}
