package ufs_test

import (
	"strings"
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func TestMountRights(t *testing.T) {
	for _, c := range []struct {
		options map[string]string
		typ     freshet.FileType
		want    freshet.Rights
	}{
		{nil, freshet.TypeDirectory, freshet.Rights{Mode: 0o700}},
		{nil, freshet.TypeFile, freshet.Rights{Mode: 0o600}},
		{map[string]string{"owner": "etl", "group": "staff", "mode": "0751"}, freshet.TypeDirectory, freshet.Rights{Owner: "etl", Group: "staff", Mode: 0o751}},
		{map[string]string{"owner": "etl", "group": "staff", "mode": "1777"}, freshet.TypeFile, freshet.Rights{Owner: "etl", Group: "staff", Mode: 0o666}},
		{map[string]string{"mode": "9"}, freshet.TypeDirectory, freshet.Rights{Mode: 0o700}}, // which no storage takes
	} {
		c.want.Type, c.want.MountOf = c.typ, "/m"
		if got := ufs.MountRights(freshet.Mount{Path: "/m", Options: c.options}, c.typ); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.options, got, c.want)
		}
	}
}

func TestRightsOptions(t *testing.T) {
	for text, want := range map[string]string{"0750": "", "1777": "", "0": "", "2755": "out of range", "abc": "octal", "0o7": "octal", "-1": "allowed is 0 to 01777"} {
		_, err := ufs.RightsOptions().Check("s3", map[string]string{"mode": text})
		if want == "" && err != nil || want != "" && (!freshet.IsKind(err, freshet.KindInvalid) || !strings.Contains(err.Error(), want)) {
			t.Errorf("mode %s: %v, want %q", text, err, want)
		}
	}
}
