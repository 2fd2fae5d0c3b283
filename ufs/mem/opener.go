package mem

import (
	"strings"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
)

// Opener opens mem://name/prefix mounts of the stores by name. It lets several
// simulated processes mount one storage.
type Opener map[string]*Store

var _ ufs.Opener = Opener(nil)

// Schemes returns "mem".
func (Opener) Schemes() []string { return []string{"mem"} }

// Parse implements ufs.Opener. The domain is the store.
func (Opener) Parse(spec ufs.Spec) (ufs.Canonical, error) {
	u, err := ufs.ParseURI(spec.URI)
	if err != nil {
		return ufs.Canonical{}, err
	}
	if u.Scheme != "mem" || u.Host == "" {
		return ufs.Canonical{}, freshet.Errorf(freshet.KindInvalid, "parse uri", "", "a storage in memory is named by a URI such as %q", "mem://name/prefix")
	}
	v, err := ufs.CommonOptions(0).Check("mem", spec.Options)
	if err != nil {
		return ufs.Canonical{}, err
	}
	return v.OverrideDomain(ufs.Canonical{Scheme: "mem", Authority: "mem://" + u.Host, DomainKey: "/" + strings.TrimPrefix(u.Path, "/")})
}

// Open implements ufs.Opener.
func (o Opener) Open(spec ufs.Spec, _ ufs.Environment) (ufs.FS, error) {
	if _, err := o.Parse(spec); err != nil {
		return nil, err
	}
	u, err := ufs.ParseURI(spec.URI)
	if err != nil {
		return nil, err
	}
	store, ok := o[u.Host]
	if !ok {
		return nil, freshet.Errorf(freshet.KindNotExist, "open storage", "", "no storage in memory is called %q", u.Host)
	}
	return store.FS(u.Path), nil
}
