package coordinator

import (
	"context"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	"github.com/freshet-io/freshet/coordinator/ops"
	"github.com/freshet-io/freshet/ufs"
)

const opRights = "check permissions"

// virtualMode is that of directories that are there only because mount points lie
// below them, which belong to nobody.
const virtualMode = 0o755

// Rights returns what decides who may use p, as fresh as p itself. KindNotExist if
// there is nothing.
func (c *Coordinator) Rights(ctx context.Context, p freshet.Path, opts freshet.ReadOptions) (freshet.Rights, error) {
	if err := c.prepare(ctx, p, opts); err != nil {
		return freshet.Rights{}, c.leaderHint(err)
	}
	e, err := c.sync.Entry(ctx, p, c.ruleOf(opts.SyncInterval))
	if err != nil {
		return freshet.Rights{}, c.leaderHint(err)
	}
	r := freshet.Rights{Path: p, Type: e.Info.Type, Owner: e.Info.Owner, Group: e.Info.Group, Mode: e.Info.Mode}
	r.Keep = c.keepRights(&e)
	m, ok := c.state.MountAt(p)
	if !ok {
		r.Mode = virtualMode
		return r, nil
	}
	fs, release, err := c.storage(m)
	if err != nil {
		return freshet.Rights{}, err
	}
	defer release()
	if !fs.Features().OwnerAndMode {
		keep := r.Keep
		r = ufs.MountRights(m, e.Info.Type)
		r.Path, r.Keep = p, keep
		return r, nil
	}
	r.Kept = true
	if r.Owner == "" {
		// Mount points and the ways to them are never looked at as entries.
		if r, err = c.tops.rights(ctx, c.clock.Elapsed, m, fs, r); err != nil {
			return freshet.Rights{}, freshet.Wrap(opRights, p, err)
		}
	}
	_, lists := ufs.ACLsOf(fs)
	r.Listed = lists && r.Owner != ""
	return r, nil
}

// AccessList returns the access control list of p as the storage has it now, nil if
// it keeps none.
func (c *Coordinator) AccessList(ctx context.Context, p freshet.Path) (list acl.List, err error) {
	err = c.ask(ctx, opRights, p, func(fs ufs.FS, key string) error {
		a, err := ops.ACLsAt(opRights, p, fs)
		if err == nil {
			list, err = a.ACL(ctx, key)
		}
		if freshet.IsKind(err, freshet.KindUnsupported) {
			err = nil
		}
		return err
	})
	return list, err
}

// tops remembers for a moment whose mount points, and the ways to them, are.
type tops struct {
	mu   sync.Mutex
	held map[topKey]top
}

type topKey struct {
	mount      freshet.MountID
	generation uint64
	key        string
}

type top struct {
	rights freshet.Rights
	at     time.Duration
}

const (
	topLife = time.Second // how late a change of them is noticed
	maxTops = 4096
)

// rights asks the storage whose r.Path is, unless it did just now.
func (t *tops) rights(ctx context.Context, elapsed func() time.Duration, m freshet.Mount, fs ufs.FS, r freshet.Rights) (freshet.Rights, error) {
	k, now := topKey{m.ID, m.Generation, m.Path.Rel(r.Path)}, elapsed()
	t.mu.Lock()
	have, ok := t.held[k]
	t.mu.Unlock()
	if ok && now-have.at < topLife {
		have.rights.Keep = topLife - (now - have.at)
		return have.rights, nil
	}
	st, err := fs.Stat(ctx, k.key)
	switch {
	case err == nil:
		r.Owner, r.Group, r.Mode = st.Owner, st.Group, st.Mode
	case freshet.IsKind(err, freshet.KindNotExist) && k.key != "":
		r.Mode = virtualMode
	default:
		return r, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held == nil || len(t.held) >= maxTops {
		t.held = map[topKey]top{}
	}
	r.Keep = topLife
	t.held[k] = top{r, now}
	return r, nil
}
