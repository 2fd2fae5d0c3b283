package ufs

import (
	"strconv"

	"github.com/freshet-io/freshet"
)

// Names of the options by which a storage that keeps no owners says whose its
// entries count as, where permissions are checked.
const (
	OptionOwner = "owner"
	OptionGroup = "group"
	OptionMode  = "mode"
)

// defaultMode leaves all to the superuser until the operator says otherwise.
const defaultMode = "0700"

// RightsOptions returns the options of storages that keep no owner, group and mode.
func RightsOptions() OptionTable {
	return OptionTable{
		{Name: OptionOwner, Help: "whose all entries count as where permissions are checked; the superuser's by default"},
		{Name: OptionGroup, Help: "which group's all entries count as where permissions are checked"},
		{Name: OptionMode, Type: OptionOctal, Default: defaultMode, Max: 0o1777, Help: "permissions that all directories count as having where they are checked, such as 0750; files have them without x"},
	}
}

// MountRights returns what decides who may use the entries of a mount whose storage
// keeps no owner, group and mode. Options that the storage refuses are ignored, and
// all entries left to the superuser.
func MountRights(m freshet.Mount, typ freshet.FileType) freshet.Rights {
	text, ok := m.Options[OptionMode]
	if !ok {
		text = defaultMode
	}
	mode, err := strconv.ParseUint(text, 8, 12)
	if err != nil {
		mode = 0o700
	}
	if typ != freshet.TypeDirectory {
		mode &= 0o666
	}
	return freshet.Rights{Type: typ, Owner: m.Options[OptionOwner], Group: m.Options[OptionGroup], Mode: uint32(mode), MountOf: m.Path}
}
