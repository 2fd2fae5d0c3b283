package hdfs

import (
	"context"
	"fmt"
	"strings"

	lib "github.com/colinmarc/hdfs/v2"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	"github.com/freshet-io/freshet/ufs"
)

var (
	_ ufs.Xattrs = (*FS)(nil)
	_ ufs.ACLs   = (*FS)(nil)
)

// userNamespace is that of the attributes of users, as the NameNode numbers it.
const userNamespace = protoreflect.EnumNumber(0)

// Flags of setXAttr.
const (
	flagCreate  = uint32(1)
	flagReplace = uint32(2)
)

// attrCall is call for what is asked of the attributes of key.
func (f *FS) attrCall(ctx context.Context, op, key string, mode again, fn func(c *client) error) error {
	if err := begin(ctx, op, key); err != nil {
		return err
	}
	if ufs.IsTemp(key) {
		return absent(op, key)
	}
	err := f.call(ctx, op, key, mode, func(c *client, _ bool) error { return fn(c) })
	if isNotDir(err) {
		return absent(op, key)
	}
	return explained(op, key, err)
}

// explained finds out what the NameNode means by the exceptions that it throws for
// many reasons.
func explained(op, key string, err error) error {
	answer, ok := remote(err)
	if !ok {
		return err
	}
	text := firstLine(answer.Message())
	says := func(part string) bool { return strings.Contains(text, part) }
	class := exception(err)
	var kind freshet.Kind
	switch {
	case says("has been disabled"), says("Support for ACLs"), says("Support for XAttrs"):
		return ufs.Errorf(freshet.KindUnsupported, op, key, "this HDFS keeps none: they are switched off on the NameNode: %w", err)
	case class == "AclException":
		kind = freshet.KindInvalid
	case class == "XAttrNotFoundException", says("No matching attributes found"), says("attributes provided was not found"), says("The CREATE flag must be specified"):
		kind = freshet.KindNotExist
	case says("already exists. The REPLACE flag"):
		kind = freshet.KindExist
	case says("would exceed limit"):
		kind = freshet.KindExhausted
	case says("too big"), says("exceeds"):
		kind = freshet.KindInvalid
	default:
		return err
	}
	return ufs.Errorf(kind, op, key, "HDFS: %s", text)
}

// Xattrs implements ufs.Xattrs.
func (f *FS) Xattrs(ctx context.Context, key string) (map[string][]byte, error) {
	var all map[string][]byte
	err := f.attrCall(ctx, ufs.OpXattrs, key, idempotent, func(c *client) (err error) {
		all, err = c.xattrs(f.path(key))
		return err
	})
	return all, err
}

// SetXattr implements ufs.Xattrs.
func (f *FS) SetXattr(ctx context.Context, key, name string, value []byte, when freshet.XattrWhen) error {
	if err := freshet.CheckXattrName(ufs.OpSetXattr, freshet.Path(key), name); err != nil {
		return err
	}
	flags, mode := flagCreate|flagReplace, idempotent
	switch when {
	case freshet.XattrAlways:
	case freshet.XattrCreate:
		flags, mode = flagCreate, once
	case freshet.XattrReplace:
		flags = flagReplace
	}
	return f.attrCall(ctx, ufs.OpSetXattr, key, mode, func(c *client) error {
		_, err := c.rpc("setXAttr", fields{"src": f.path(key), "xAttr": xattrOf(name, value), "flag": flags})
		return err
	})
}

// RemoveXattr implements ufs.Xattrs.
func (f *FS) RemoveXattr(ctx context.Context, key, name string) error {
	if err := freshet.CheckXattrName(ufs.OpRemoveXattr, freshet.Path(key), name); err != nil {
		return err
	}
	return f.attrCall(ctx, ufs.OpRemoveXattr, key, once, func(c *client) error {
		_, err := c.rpc("removeXAttr", fields{"src": f.path(key), "xAttr": xattrOf(name, nil)})
		return err
	})
}

func xattrOf(name string, value []byte) fields {
	out := fields{"namespace": userNamespace, "name": strings.TrimPrefix(name, freshet.XattrPrefix)}
	if value != nil {
		out["value"] = value
	}
	return out
}

// xattrs returns the attributes of users of a path.
func (c *client) xattrs(path string) (map[string][]byte, error) {
	resp, err := c.rpc("getXAttrs", fields{"src": path})
	if err != nil {
		return nil, err
	}
	all := map[string][]byte{}
	v, ok := get(resp, "xAttrs")
	if !ok {
		return all, nil
	}
	for i := range v.List().Len() {
		m := v.List().Get(i).Message()
		space, ok1 := get(m, "namespace")
		name, ok2 := get(m, "name")
		if !ok1 || !ok2 || space.Enum() != userNamespace {
			continue
		}
		value := []byte{}
		if v, ok := get(m, "value"); ok {
			value = v.Bytes()
		}
		all[freshet.XattrPrefix+name.String()] = value
	}
	return all, nil
}

// ACL implements ufs.ACLs.
func (f *FS) ACL(ctx context.Context, key string) (acl.List, error) {
	var l acl.List
	err := f.attrCall(ctx, ufs.OpACL, key, idempotent, func(c *client) (err error) {
		l, err = c.acl(f.path(key))
		return err
	})
	return l, err
}

// ChangeACL implements ufs.ACLs. Each change is one call, so that the NameNode
// decides what it is applied to.
func (f *FS) ChangeACL(ctx context.Context, key string, change acl.Change) error {
	const op = ufs.OpChangeACL
	if err := change.Check(); err != nil {
		return ufs.Errorf(freshet.KindInvalid, op, key, "%w", err)
	}
	request := fields{"src": f.path(key)}
	var method string
	switch change.Kind {
	case acl.Modify:
		method = "modifyAclEntries"
	case acl.Remove:
		method = "removeAclEntries"
	case acl.Set:
		method = "setAcl"
	case acl.RemoveAll:
		method = "removeAcl"
	case acl.RemoveDefault:
		method = "removeDefaultAcl"
	}
	if len(change.Entries) > 0 {
		request["aclSpec"] = aclSpec(change.Entries)
	}
	return f.attrCall(ctx, op, key, idempotent, func(c *client) error {
		_, err := c.rpc(method, request)
		return err
	})
}

// aclBit marks a mode as that of an entry whose list says more, and aclFlag its
// status, depending on the version of HDFS.
const (
	aclBit  = 1 << 12
	aclFlag = 1
)

// hasACL reports whether the list of an entry says more than its mode.
func hasACL(s *lib.FileStatus) bool {
	if s.GetPermission().GetPerm()&aclBit != 0 {
		return true
	}
	flags, ok := get(s.ProtoReflect(), "flags")
	return ok && flags.Uint()&aclFlag != 0
}

// copyACL gives the file at path the list of key's access scope. Without the group
// the owning group gets no right that others do not have.
func (f *FS) copyACL(ctx context.Context, op, key, path string, group bool) error {
	return f.call(ctx, op, key, idempotent, func(c *client, _ bool) error {
		l, err := c.acl(f.path(key))
		if err != nil {
			return err
		}
		if l = l.Scope(false); !group {
			l = l.WithoutGroup()
		}
		_, err = c.rpc("setAcl", fields{"src": path, "aclSpec": aclSpec(l)})
		return err
	})
}

// removeACL leaves the file at path its mode.
func (f *FS) removeACL(ctx context.Context, op, key, path string) error {
	return f.call(ctx, op, key, idempotent, func(c *client, _ bool) error {
		_, err := c.rpc("removeAcl", fields{"src": path})
		return err
	})
}

// aclSpec writes entries. The NameNode numbers tags and permissions as acl does.
func aclSpec(l acl.List) []fields {
	out := make([]fields, 0, len(l))
	for _, e := range l {
		scope := protoreflect.EnumNumber(0)
		if e.Default {
			scope = 1
		}
		entry := fields{"type": protoreflect.EnumNumber(e.Tag), "scope": scope, "permissions": protoreflect.EnumNumber(e.Perm)}
		if e.Name != "" {
			entry["name"] = e.Name
		}
		out = append(out, entry)
	}
	return out
}

// acl returns the list of a path. The NameNode keeps owner, mask and other of the
// access scope in the mode.
func (c *client) acl(path string) (acl.List, error) {
	resp, err := c.rpc("getAclStatus", fields{"src": path})
	if err != nil {
		return nil, err
	}
	v, ok := get(resp, "result")
	if !ok {
		return nil, fmt.Errorf("%w: no result of getAclStatus", errLibrary)
	}
	status := v.Message()
	perm, ok := get(status, "permission")
	if !ok {
		return nil, fmt.Errorf("%w: no permission in the result of getAclStatus", errLibrary)
	}
	mode, ok := get(perm.Message(), "perm")
	if !ok {
		return nil, fmt.Errorf("%w: no mode in the result of getAclStatus", errLibrary)
	}
	l := acl.FromMode(uint32(mode.Uint())) //nolint:gosec // a mode
	entries, ok := get(status, "entries")
	if !ok {
		return l, nil
	}
	extended := false
	for i := range entries.List().Len() {
		e, err := entryOf(entries.List().Get(i).Message())
		if err != nil {
			return nil, err
		}
		if e.Default || e.Name != "" {
			extended = extended || !e.Default
			l = append(l, e)
			continue
		}
		extended = true
		switch e.Tag {
		case acl.Group:
			l[1].Perm = e.Perm
		default:
			return nil, fmt.Errorf("%w: an entry %s in the result of getAclStatus", errLibrary, e)
		}
	}
	if extended {
		l = append(l, acl.Entry{Tag: acl.Mask, Perm: acl.Perm(mode.Uint()>>3) & 7}) //nolint:gosec // three bits
	}
	return l.Sorted(), nil
}

func entryOf(m protoreflect.Message) (e acl.Entry, err error) {
	tag, ok1 := get(m, "type")
	scope, ok2 := get(m, "scope")
	perm, ok3 := get(m, "permissions")
	if !ok1 || !ok2 || !ok3 {
		return e, fmt.Errorf("%w: an incomplete entry of an access control list", errLibrary)
	}
	e = acl.Entry{Default: scope.Enum() == 1, Tag: acl.Tag(tag.Enum()), Perm: acl.Perm(perm.Enum()) & 7} //nolint:gosec // small enums
	if name, ok := get(m, "name"); ok {
		e.Name = name.String()
	}
	return e, nil
}
