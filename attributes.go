package freshet

import "github.com/freshet-io/freshet/acl"

// XattrPrefix starts the names of the extended attributes that Freshet passes
// through: those of users. All others belong to the storage and its system.
const XattrPrefix = "user."

// MaxXattr is the largest value of an extended attribute in bytes that Freshet
// passes through; storages may take less.
const MaxXattr = 64 << 10

// XattrWhen says when an extended attribute is set.
type XattrWhen uint8

// The conditions. The zero value has none.
const (
	XattrAlways  XattrWhen = iota
	XattrCreate            // KindExist if it is there
	XattrReplace           // KindNotExist if it is not there
)

// CheckXattrName returns a KindInvalid error for a name that no extended attribute
// of users has.
func CheckXattrName(op string, p Path, name string) error {
	const most = 255 // bytes, on Linux and HDFS
	switch {
	case len(name) <= len(XattrPrefix) || name[:len(XattrPrefix)] != XattrPrefix:
		return Errorf(KindInvalid, op, p, "the name %q of an attribute does not begin with %q: attributes of the system are not passed through", name, XattrPrefix)
	case len(name) > most:
		return Errorf(KindInvalid, op, p, "the name of an attribute is longer than %d bytes", most)
	}
	for i := range len(name) {
		if name[i] < ' ' || name[i] == 0x7f {
			return Errorf(KindInvalid, op, p, "the name %q of an attribute has a control character", name)
		}
	}
	return nil
}

// SetXattrQuery asks to set an extended attribute.
type SetXattrQuery struct {
	Op    OpID
	Path  Path
	Name  string // begins with XattrPrefix
	Value []byte
	When  XattrWhen
}

// RemoveXattrQuery asks to remove an extended attribute.
type RemoveXattrQuery struct {
	Op   OpID
	Path Path
	Name string
}

// SetACLQuery asks to change an access control list.
type SetACLQuery struct {
	Op     OpID
	Path   Path
	Change acl.Change
}

// ACL is the access control list of an entry with what it belongs to.
type ACL struct {
	Path         Path
	Type         FileType
	Owner, Group string
	Mode         uint32
	List         acl.List
}
