package object

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// parallelCopies is how many objects of a directory are copied at a time.
const parallelCopies = 8

// Rename copies and deletes. A directory is copied object by object, then
// deleted; a hidden object in the new directory tells the state, so that the same
// call made again after a failure goes on where it ended.
func (f *FS) Rename(ctx context.Context, from, to string) (ufs.Status, error) {
	const op = "rename"
	for _, key := range []string{from, to} {
		if err := ufs.CheckWrite(op, key); err != nil {
			return ufs.Status{}, err
		}
	}
	if strings.HasPrefix(to, from+"/") {
		return ufs.Status{}, ufs.Errorf(freshet.KindInvalid, op, from, "cannot move it into its own subtree %q", to)
	}
	if from == to {
		return f.Stat(ctx, from)
	}
	src, err := f.store.Head(ctx, f.root+from)
	switch {
	case freshet.IsKind(err, freshet.KindNotExist) && ctx.Err() == nil:
		return f.renameDir(ctx, from, to, false)
	case err != nil:
		return ufs.Status{}, f.failure(ctx, op, from, err)
	case src.Dir:
		return f.renameDir(ctx, from, to, true)
	}
	src.Name = f.root + from
	return f.renameFile(ctx, src, from, to)
}

func (f *FS) renameFile(ctx context.Context, src Object, from, to string) (ufs.Status, error) {
	const op = "rename"
	if err := f.checkWay(ctx, op, to); err != nil {
		return ufs.Status{}, err
	}
	st, err := f.copy(ctx, src, from, f.root+to)
	if err != nil {
		return ufs.Status{}, err
	}
	return st, begun(f.leaving(ctx, op, from, func() error { return f.delete(ctx, op, from, []string{src.Name}) }))
}

func (f *FS) copy(ctx context.Context, src Object, from, to string) (ufs.Status, error) {
	const op = "rename"
	if !src.Fingerprint.Known() {
		return ufs.Status{}, ufs.Errorf(freshet.KindUnsupported, op, from, "the storage names no version by which the copy could be made safe")
	}
	o, err := f.store.Copy(ctx, src, to)
	if err != nil {
		return ufs.Status{}, f.failure(ctx, op, from, err)
	}
	o.Name, o.Size, o.Op = to, src.Size, src.Op
	return f.status(&o), nil
}

// renameState is the content of the hidden object in the new directory.
type renameState string

const (
	renameNone   renameState = ""
	renameCopies renameState = "copying"
	renameCopied renameState = "copied" // from here on nothing is copied again
)

// renameDir moves the directory from; object says that one without a slash stands
// for it.
func (f *FS) renameDir(ctx context.Context, from, to string, object bool) (ufs.Status, error) {
	const op = "rename"
	sum := sha256.Sum256([]byte(from))
	name := f.marker(to) + ufs.TempPrefix + "rename-" + hex.EncodeToString(sum[:8])
	state, err := f.renameState(ctx, from, to, name, object)
	if err != nil {
		return ufs.Status{}, err
	}
	if state == renameNone {
		if err := f.setRename(ctx, to, name, renameCopies); err != nil {
			return ufs.Status{}, err
		}
	}
	if state != renameCopied {
		if object {
			if err := f.mark(ctx, op, to); err != nil {
				return ufs.Status{}, begun(err)
			}
		}
		if err := f.copyTree(ctx, from, to); err != nil {
			return ufs.Status{}, begun(err)
		}
		if err := f.setRename(ctx, to, name, renameCopied); err != nil {
			return ufs.Status{}, begun(err)
		}
	}
	if err := f.leaving(ctx, op, from, func() error { return f.deleteTree(ctx, op, from, ufs.RemoveOptions{}) }); err != nil {
		return ufs.Status{}, begun(err)
	}
	return directory(to), begun(f.delete(ctx, op, to, []string{name}))
}

// renameState tells how far an earlier call came, and refuses a new move whose
// source is missing or whose destination is taken.
func (f *FS) renameState(ctx context.Context, from, to, name string, object bool) (renameState, error) {
	const op = "rename"
	source, err := f.first(ctx, op, from, 1)
	if err != nil {
		return renameNone, err
	}
	target, err := f.first(ctx, op, to, 1)
	if err != nil {
		return renameNone, err
	}
	if len(target) > 0 {
		state, err := f.readRename(ctx, to, name)
		if state != renameNone || err != nil {
			return state, err
		}
	}
	switch {
	case len(source) == 0 && !object:
		return renameNone, notExist(op, from)
	case len(target) > 0:
		return renameNone, dirExists(op, to)
	}
	st, found, err := f.head(ctx, op, to)
	switch {
	case err != nil:
		return renameNone, err
	case found && st.IsDir():
		return renameNone, dirExists(op, to)
	case found:
		return renameNone, ufs.Errorf(freshet.KindConflict, op, to, "is a file; a directory can't replace it")
	}
	return renameNone, f.checkParents(ctx, op, to)
}

// readRename reads the hidden object, "" if there is none.
func (f *FS) readRename(ctx context.Context, to, name string) (renameState, error) {
	const op = "rename"
	a, err := f.store.Get(ctx, name, GetRequest{Length: int64(len(renameCopies))})
	if freshet.IsKind(err, freshet.KindNotExist) && ctx.Err() == nil {
		return renameNone, nil
	}
	if err != nil {
		return renameNone, f.failure(ctx, op, to, err)
	}
	defer a.Body.Close() //nolint:errcheck // it was read
	text, err := io.ReadAll(io.LimitReader(a.Body, int64(len(renameCopies))))
	if err != nil {
		return renameNone, f.failure(ctx, op, to, err)
	}
	switch state := renameState(text); state {
	case renameCopies, renameCopied:
		return state, nil
	default:
		return renameNone, f.failure(ctx, op, to, fmt.Errorf("unreadable state of an earlier move: %q", text))
	}
}

func (f *FS) setRename(ctx context.Context, to, name string, state renameState) error {
	_, err := f.store.Put(ctx, name, []byte(state), PutOptions{Size: int64(len(state))})
	return f.failure(ctx, "rename", to, err)
}

// copyTree copies every object below from, page by page. After a failure none is
// begun, and those under way are waited for.
func (f *FS) copyTree(ctx context.Context, from, to string) error {
	const op = "rename"
	prefix := f.marker(from)
	return f.pages(ctx, op, from, ListRequest{Prefix: prefix}, func(p Page) (bool, error) {
		var group errgroup.Group
		group.SetLimit(parallelCopies)
		var failed atomic.Bool
		outcomes := make([]error, len(p.Objects))
		for i, o := range p.Objects {
			if failed.Load() {
				break
			}
			group.Go(func() error {
				outcomes[i] = f.copyOne(ctx, o, o.Name[len(prefix):], to)
				if outcomes[i] != nil {
					failed.Store(true)
				}
				return nil
			})
		}
		_ = group.Wait()
		return true, Outcome(outcomes...)
	})
}

// copyOne copies o to the name rest below the directory to.
func (f *FS) copyOne(ctx context.Context, o Object, rest, to string) error {
	if o.Dir || o.Size == 0 && (rest == "" || strings.HasSuffix(rest, "/")) {
		return f.mark(ctx, "rename", strings.TrimSuffix(to+"/"+rest, "/")) // some servers can't copy it
	}
	_, err := f.copy(ctx, o, strings.TrimPrefix(o.Name, f.root), f.marker(to)+rest)
	return err
}
