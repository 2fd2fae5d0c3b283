package object_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/object"
)

// flat is an object store in memory. Its zero value is not usable.
type flat struct {
	limits     object.Limits
	shortPages bool // every other page is empty
	noAfter    bool // StartAfter is ignored
	repeats    bool // common prefixes are on every page
	folders    bool // directories are objects without a slash, as with a hierarchical namespace
	unsaid     bool // names come by segments, of which the limits say nothing

	mu      sync.Mutex
	etag    int64
	objects map[string]entry
	uploads map[*upload]bool // live ones
	fail    func(call, name string) error
	stalled bool // nothing is answered before the caller gives up
	calls   map[string]int
}

type entry struct {
	object.Object
	data []byte
}

func newFlat() *flat {
	return &flat{
		limits: object.Limits{
			Kind: "flat", Bucket: "memory", ListPage: 1000, SinglePut: 64 << 10, PartSize: 256 << 10, MaxParts: 100, Concurrency: 3, DeleteBatch: 7,
			IfAbsent: true, IfMatch: true, OperationMark: true, AbortEndsEffects: true, ModTimeResolution: time.Nanosecond,
		},
		objects: map[string]entry{}, uploads: map[*upload]bool{}, calls: map[string]int{},
	}
}

func (s *flat) enter(ctx context.Context, call, name string) error {
	if ctx.Err() != nil {
		return &freshet.Error{Kind: freshet.KindDeadline, Err: errors.Join(ufs.ErrNotSent, ctx.Err())}
	}
	s.mu.Lock()
	s.calls[call]++
	fail := s.fail
	s.mu.Unlock()
	if s.stalled {
		<-ctx.Done()
		return &freshet.Error{Kind: freshet.KindDeadline, Err: ctx.Err()}
	}
	if fail != nil {
		return fail(call, name)
	}
	return nil
}

func (s *flat) Limits() object.Limits { return s.limits }
func (s *flat) Close() error          { return nil }

func (s *flat) Head(ctx context.Context, name string) (object.Object, error) {
	if err := s.enter(ctx, "head", name); err != nil {
		return object.Object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[name]
	if !ok {
		return object.Object{}, object.Errorf(freshet.KindNotExist, "no such object")
	}
	return e.Object, nil
}

func (s *flat) List(ctx context.Context, req object.ListRequest) (object.Page, error) {
	if err := s.enter(ctx, "list", req.Prefix); err != nil {
		return object.Page{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limits.Segmented || s.unsaid {
		return s.segmented(req), nil
	}
	if s.shortPages && !strings.HasSuffix(req.Token, "\x00") {
		return object.Page{Next: req.Token + "\x00"}, nil
	}
	after := strings.TrimSuffix(req.Token, "\x00")
	if !s.noAfter {
		after = max(after, req.StartAfter)
	}
	limit := cmp.Or(req.Max, s.limits.ListPage)
	var p object.Page
	for _, name := range slices.Sorted(maps.Keys(s.objects)) {
		if !strings.HasPrefix(name, req.Prefix) || name <= after {
			continue
		}
		if len(p.Objects)+len(p.Prefixes) == limit {
			p.Next = after
			break
		}
		rest := name[len(req.Prefix):]
		if i := strings.IndexByte(rest, '/'); req.Delimited && i >= 0 {
			prefix := name[:len(req.Prefix)+i+1]
			p.Prefixes = append(p.Prefixes, prefix)
			after = prefix + "\xff\xff"
			if s.repeats {
				after = name
			}
			p.Prefixes = slices.Compact(p.Prefixes)
			continue
		}
		p.Objects = append(p.Objects, s.objects[name].Object)
		after = name
	}
	slices.Reverse(p.Prefixes) // in any order
	return p, nil
}

// segmented lists in the order of segments. The token is the last name's place.
func (s *flat) segmented(req object.ListRequest) object.Page {
	order := func(name string) string { return strings.ReplaceAll(strings.TrimSuffix(name, "/"), "/", "\x00") }
	names := slices.SortedFunc(maps.Keys(s.objects), func(a, b string) int { return cmp.Compare(order(a), order(b)) })
	var all []string
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, req.Prefix)
		if i := strings.IndexByte(rest, '/'); ok && req.Delimited && i >= 0 {
			name = name[:len(req.Prefix)+i+1]
		}
		if ok && order(name) > req.Token && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	to := min(len(all), cmp.Or(req.Max, s.limits.ListPage))
	p := object.Page{Segmented: s.unsaid && to > 0}
	for _, name := range all[:to] {
		if req.Delimited && strings.HasSuffix(name, "/") && name != req.Prefix {
			p.Prefixes = append(p.Prefixes, name)
			continue
		}
		p.Objects = append(p.Objects, s.objects[name].Object)
	}
	if to < len(all) {
		p.Next = order(all[to-1])
	}
	return p
}

func (s *flat) Get(ctx context.Context, name string, req object.GetRequest) (object.Answer, error) {
	if err := s.enter(ctx, "get", name); err != nil {
		return object.Answer{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[name]
	switch {
	case !ok:
		return object.Answer{}, object.Errorf(freshet.KindNotExist, "no such object")
	case req.Want.Known() && !req.Want.SameContent(e.Fingerprint):
		return object.Answer{}, object.Errorf(freshet.KindStale, "another version")
	case req.Offset >= e.Size && (req.Offset > 0 || e.Size > 0):
		return object.Answer{}, object.Errorf(freshet.KindInvalid, "%w", object.ErrRange)
	}
	data := e.data[req.Offset:]
	if req.Length > 0 && req.Length < int64(len(data)) {
		data = data[:req.Length]
	}
	return object.Answer{Object: e.Object, Body: io.NopCloser(bytes.NewReader(data)), First: req.Offset, Length: int64(len(data))}, nil
}

// write stores data; s.mu is held.
func (s *flat) write(name string, data []byte, o object.PutOptions) (object.Object, error) {
	old, exists := s.objects[name]
	switch {
	case o.IfAbsent && exists:
		return object.Object{}, object.Errorf(freshet.KindExist, "something is there")
	case o.IfMatch.Known() && !(exists && o.IfMatch.SameContent(old.Fingerprint)):
		return object.Object{}, object.Errorf(freshet.KindStale, "another version")
	}
	s.etag++
	e := entry{data: data, Object: object.Object{
		Name: name, Size: int64(len(data)), ModTime: time.Now(), Op: o.Op,
		Fingerprint: fingerprint.S3(strconv.FormatInt(s.etag, 10), int64(len(data))),
	}}
	s.objects[name] = e
	return e.Object, nil
}

func (s *flat) Put(ctx context.Context, name string, data []byte, o object.PutOptions) (object.Object, error) {
	if err := s.enter(ctx, "put", name); err != nil {
		return object.Object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.write(name, slices.Clone(data), o)
}

func (s *flat) Mark(ctx context.Context, name string) error {
	if err := s.enter(ctx, "mark", name); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.folders {
		name = strings.TrimSuffix(name, "/")
	}
	_, err := s.write(name, nil, object.PutOptions{})
	e := s.objects[name]
	e.Dir = s.folders
	s.objects[name] = e
	return err
}

func (s *flat) Copy(ctx context.Context, from object.Object, to string) (object.Object, error) {
	if err := s.enter(ctx, "copy", from.Name); err != nil {
		return object.Object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.objects[from.Name]
	if !ok || !e.Fingerprint.SameContent(from.Fingerprint) {
		return object.Object{}, object.Errorf(freshet.KindStale, "another version")
	}
	return s.write(to, e.data, object.PutOptions{Op: e.Op})
}

func (s *flat) Delete(ctx context.Context, names []string) error {
	s.mu.Lock()
	big := len(names) > s.limits.DeleteBatch
	s.mu.Unlock()
	if big {
		return object.Errorf(freshet.KindInvalid, "%d names in a batch", len(names))
	}
	for _, name := range names {
		if err := s.enter(ctx, "delete", name); err != nil {
			return err
		}
		s.mu.Lock()
		full := false
		for other := range s.objects {
			full = full || strings.HasPrefix(other, name+"/")
		}
		if s.objects[name].Dir && full {
			s.mu.Unlock()
			return object.Errorf(freshet.KindConflict, "directory %q is not empty", name)
		}
		delete(s.objects, name)
		s.mu.Unlock()
	}
	return nil
}

// upload is one upload in parts.
type upload struct {
	s    *flat
	name string
	opts object.PutOptions

	mu    sync.Mutex
	parts map[int][]byte
}

func (s *flat) Begin(ctx context.Context, name string, o object.PutOptions) (object.Parts, error) {
	if err := s.enter(ctx, "begin", name); err != nil {
		return nil, err
	}
	u := &upload{s: s, name: name, opts: o, parts: map[int][]byte{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uploads[u] = true
	return u, nil
}

func (u *upload) Part(ctx context.Context, number int, data []byte) error {
	if err := u.s.enter(ctx, "part", u.name); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.s.limits.Concurrency == 1 && number != len(u.parts)+1 {
		return object.Errorf(freshet.KindInvalid, "part %d came after %d others", number, len(u.parts))
	}
	u.parts[number] = slices.Clone(data)
	return nil
}

func (u *upload) Complete(ctx context.Context, count int, size int64) (object.Object, error) {
	if err := u.s.enter(ctx, "complete", u.name); err != nil {
		return object.Object{}, err
	}
	var all []byte
	for i := range count {
		all = append(all, u.parts[i+1]...)
	}
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	switch {
	case !u.s.uploads[u]:
		return object.Object{}, object.Errorf(freshet.KindConflict, "the upload was ended by somebody else")
	case len(u.parts) != count || int64(len(all)) != size:
		return object.Object{}, object.Errorf(freshet.KindInvalid, "%d parts of %d, %d bytes of %d", len(u.parts), count, len(all), size)
	}
	o, err := u.s.write(u.name, all, u.opts)
	if err == nil {
		delete(u.s.uploads, u)
	}
	return o, err
}

func (u *upload) Abort(ctx context.Context) (bool, error) {
	if err := u.s.enter(ctx, "abort", u.name); err != nil {
		return false, err
	}
	u.s.mu.Lock()
	defer u.s.mu.Unlock()
	was := u.s.uploads[u]
	delete(u.s.uploads, u)
	return was, nil
}

func (s *flat) AbortUploads(ctx context.Context, name string, op freshet.OpID) (ended bool, err error) {
	if err := s.enter(ctx, "abort", name); err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for u := range s.uploads {
		if u.name == name && u.opts.Op == op {
			delete(s.uploads, u)
			ended = true
		}
	}
	return ended, nil
}
