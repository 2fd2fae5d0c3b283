package local

import (
	"io/fs"
	"os/user"
	"strconv"
	"sync"
	"syscall"

	"github.com/freshet-io/freshet"
)

func fromInfo(info fs.FileInfo) stat {
	s := info.Sys().(*syscall.Stat_t)
	return stat{
		dev: uint64(s.Dev), ino: s.Ino, size: s.Size, mode: uint32(s.Mode), uid: s.Uid, gid: s.Gid, //nolint:unconvert // widths differ by system
		mtime: int64(s.Mtim.Sec), mnsec: int64(s.Mtim.Nsec), ctime: int64(s.Ctim.Sec), cnsec: int64(s.Ctim.Nsec), //nolint:unconvert // widths differ by system
	}
}

// owners turns numbers of users and groups into names, and remembers them for
// the life of the FS. A number without a name stands for itself.
type owners struct {
	users, groups sync.Map // uint32 → string
}

func (o *owners) user(id uint32) string {
	if v, ok := o.users.Load(id); ok {
		return v.(string)
	}
	text := strconv.FormatUint(uint64(id), 10)
	if u, err := user.LookupId(text); err == nil && u.Username != "" {
		text = u.Username
	}
	o.users.Store(id, text)
	return text
}

func (o *owners) group(id uint32) string {
	if v, ok := o.groups.Load(id); ok {
		return v.(string)
	}
	text := strconv.FormatUint(uint64(id), 10)
	if g, err := user.LookupGroupId(text); err == nil && g.Name != "" {
		text = g.Name
	}
	o.groups.Store(id, text)
	return text
}

// userID returns the number of a user by name or number.
func userID(s string) (int, error) {
	if u, err := user.Lookup(s); err == nil {
		s = u.Uid
	}
	return number(s, "user")
}

// groupID returns the number of a group by name or number.
func groupID(s string) (int, error) {
	if g, err := user.LookupGroup(s); err == nil {
		s = g.Gid
	}
	return number(s, "group")
}

func number(s, what string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		return 0, freshet.Errorf(freshet.KindInvalid, "setattr", "", "no %s %q on this machine; a number works too", what, s)
	}
	return int(n), nil
}
