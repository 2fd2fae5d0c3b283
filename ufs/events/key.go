package events

import (
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/fingerprint"
	"github.com/freshet-io/freshet/invalidation"
	"github.com/freshet-io/freshet/ufs"
)

const maxAuthority = 512 // bytes

// change says what happened to an object.
type change uint8

const (
	written change = iota
	removed
	removedAll // a directory with all below it
	movedAll   // anything at or below the name
)

// object is what a message says of one object.
type object struct {
	authority string
	names     []string // its name, in every spelling that is possible
	change    change
	version   fingerprint.Fingerprint
	at        time.Time
}

// add makes records of what o says.
func (p *parser) add(o object) error {
	if len(o.authority) > maxAuthority || strings.ContainsFunc(o.authority, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return p.unread("an event names a storage that can't be")
	}
	if err := p.part(); err != nil {
		return err
	}
	for _, name := range o.names {
		if err := p.name(o, name); err != nil {
			return err
		}
	}
	return nil
}

// name adds the records of one spelling. In flat storages a directory is there as
// long as something is below it: what a deletion may have taken along is marked
// too, up to the root.
func (p *parser) name(o object, name string) error {
	name = strings.TrimLeft(name, "/") // servers over a file system take it for the same file; elsewhere no path is meant
	if ufs.IsTemp(name) {
		return p.skip(SkipOwn)
	}
	plain, marker := strings.CutSuffix(name, "/")
	key, clean := cleanPart(plain)
	r := invalidation.Record{Kind: invalidation.KindContent, Key: key, PublishedAt: o.at}
	switch {
	case !clean || o.change == movedAll || key == "/":
		r.Kind, r.Recursive = invalidation.KindSubtree, true
	case o.change == removedAll:
		r.Kind, r.Recursive = invalidation.KindDelete, true
	case marker && o.change == written:
		r.Kind = invalidation.KindMkdir
	case marker: // the directory may live on by what is below it
	case o.change == removed:
		r.Kind = invalidation.KindDelete
	default:
		r.Fingerprint = o.version
	}
	if err := p.record(o.authority, r); err != nil || o.change == written {
		return err
	}
	for dir := parent(key); dir != "/"; dir = parent(dir) {
		if err := p.record(o.authority, invalidation.Record{Kind: invalidation.KindContent, Key: dir, PublishedAt: o.at}); err != nil {
			return err
		}
	}
	return nil
}

// record adds a record, once.
func (p *parser) record(authority string, r invalidation.Record) error {
	known := Event{authority, r}
	known.Record.PublishedAt = time.Time{}
	if p.seen[known] {
		return nil
	}
	if len(p.msg.Events) == maxEvents {
		return errTooMany
	}
	p.seen[known] = true
	p.msg.Events = append(p.msg.Events, Event{authority, r})
	return nil
}

// cleanPart returns the key of name. If name is no path it is that of the deepest
// directory on the way to it that is one.
func cleanPart(name string) (key string, clean bool) {
	if name == "" {
		return "/", false
	}
	end := 0
	for rest, more := name, true; more; {
		var segment string
		segment, rest, more = strings.Cut(rest, "/")
		key := "/" + name[:end+len(segment)]
		if path, err := freshet.ParsePath(key); err != nil || segment == "" || string(path) != key {
			return "/" + strings.TrimSuffix(name[:end], "/"), false
		}
		end = min(end+len(segment)+1, len(name))
	}
	return "/" + name, true
}

func parent(key string) string {
	if i := strings.LastIndexByte(key, '/'); i > 0 {
		return key[:i]
	}
	return "/"
}

// spellings returns what a name may mean that is URL-encoded if its sender keeps
// to the protocol. Sure says that the sender does.
func spellings(name string, sure bool) []string {
	decoded, err := url.QueryUnescape(name)
	switch {
	case err != nil || decoded == name:
		return []string{name}
	case sure && encoded(name):
		return []string{decoded}
	}
	return []string{decoded, name}
}

// encoded reports whether name has only characters that encoding leaves.
func encoded(name string) bool {
	for _, c := range []byte(name) {
		if c <= ' ' || c >= utf8.RuneSelf || c == '"' || c == '<' || c == '>' || c == '\\' || c == '^' || c == '`' || c == '{' || c == '|' || c == '}' || c == '#' || c == '?' || c == '&' {
			return false
		}
	}
	return true
}
