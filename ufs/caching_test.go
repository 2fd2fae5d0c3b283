package ufs_test

import (
	"testing"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

func TestParseCaching(t *testing.T) {
	t.Parallel()
	yes, no := ufs.Caching{Partial: true, Passive: true}, ufs.Caching{}
	for _, test := range []struct {
		options   map[string]string
		def, want ufs.Caching
		wrong     bool
	}{
		{nil, yes, yes, false},
		{nil, no, no, false},
		{map[string]string{"region": "x"}, yes, yes, false},
		{map[string]string{"partial_caching": "false"}, yes, ufs.Caching{Passive: true}, false},
		{map[string]string{"passive_caching": "true", "partial_caching": "false"}, no, ufs.Caching{Passive: true}, false},
		{map[string]string{"partial_caching": "1"}, yes, yes, true},
		{map[string]string{"passive_caching": ""}, yes, yes, true},
	} {
		got, err := ufs.ParseCaching(test.options, test.def)
		if got != test.want || (err != nil) != test.wrong || err != nil && !freshet.IsKind(err, freshet.KindInvalid) {
			t.Errorf("%v over %+v: %+v, %v", test.options, test.def, got, err)
		}
	}
	a := map[string]string{"region": "x"}
	if !ufs.SameStorage(a, map[string]string{"region": "x", "partial_caching": "false", "passive_caching": "true"}) {
		t.Error("what is cached of a storage makes it another one")
	}
}
