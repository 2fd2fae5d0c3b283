package gcs

import (
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/events"
	"github.com/freshet-io/freshet/ufs/object"
)

// scheme is the one that this driver opens.
const scheme = "gs"

// Names of the options of a GCS mount.
const (
	optEndpoint       = "endpoint"
	optCredentials    = "credentials"
	optUserProject    = "user_project"
	optPartSize       = "part_size"
	optRequestTimeout = "request_timeout"
	optCAFile         = "ca_file"
)

// Values of the option credentials, besides a reference to a key file.
const (
	credEnv       = "env"
	credAnonymous = "anonymous"
)

// Options of an Opener; the zero value works.
type Options struct {
	// Log gets warnings; nil drops them.
	Log *slog.Logger
	// Registerer gets the counter of skipped keys; nil keeps it unregistered.
	Registerer prometheus.Registerer
}

// Opener opens gs:// URIs. Safe for concurrent use.
type Opener struct {
	log   *slog.Logger
	skips prometheus.Counter
}

var _ ufs.Opener = (*Opener)(nil)

// NewOpener returns an Opener; it does nothing yet.
func NewOpener(opts Options) *Opener {
	return &Opener{log: opts.Log, skips: object.NewSkips(opts.Registerer)}
}

// Schemes returns "gs".
func (o *Opener) Schemes() []string { return []string{scheme} }

// OptionTable returns all options that a mount of gs:// may have.
func (o *Opener) OptionTable() ufs.OptionTable { return table() }

// maxOpLifetime is how long a request that was sent may still take effect. Google
// ends a request that sends or receives nothing within minutes, and an upload in
// chunks takes effect by its last chunk only, which a dead process can't send.
const maxOpLifetime = 16 * time.Minute

func table() ufs.OptionTable {
	return append(append(ufs.CommonOptions(maxOpLifetime), ufs.RightsOptions()...), ufs.OptionTable{
		events.Option(),
		{Name: optEndpoint, Help: "URL of the service, such as https://storage.googleapis.com (the default) or a private endpoint"},
		{Name: optCredentials, Default: credEnv, Help: "env: Google's application default credentials (GOOGLE_APPLICATION_CREDENTIALS, workload identity, the metadata service); anonymous; or a reference to a key file of a service account: file:/path or env:NAME"},
		{Name: optUserProject, Help: "project that pays for the requests, for buckets of which the requester pays"},
		{Name: optPartSize, Type: ufs.OptionSize, Default: "8MiB", Min: 256 << 10, Max: 256 << 20, Help: "bytes of one request of a large upload, a multiple of 256KiB"},
		{Name: optRequestTimeout, Type: ufs.OptionDuration, Default: "30s", Min: int64(time.Second), Max: int64(time.Hour), Help: "how long the storage may be silent"},
		{Name: optCAFile, Help: "PEM file of certificate authorities to trust beside those of the machine"},
	}...)
}

// parsed is a Spec after all checks without I/O.
type parsed struct {
	endpoint, credentials, userProject, caFile string

	partSize                      int
	requestTimeout, maxOpLifetime time.Duration
	canonical                     ufs.Canonical
	bucket, root                  string
	events                        string
}

// Parse checks spec without any I/O. The authority is "gs://bucket".
func (o *Opener) Parse(spec ufs.Spec) (ufs.Canonical, error) {
	p, err := parse(spec)
	return p.canonical, err
}

func parse(spec ufs.Spec) (parsed, error) {
	const op = "parse gs mount"
	uri, err := ufs.ParseURI(spec.URI)
	if err != nil {
		return parsed{}, err
	}
	if uri.Scheme != scheme {
		return parsed{}, freshet.Errorf(freshet.KindInvalid, op, "", "scheme %q is not %q", uri.Scheme, scheme)
	}
	if err := checkBucket(uri.Host); err != nil {
		return parsed{}, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: err}
	}
	v, err := table().Check(scheme, spec.Options)
	if err != nil {
		return parsed{}, err
	}
	p := parsed{
		endpoint: v.Text(optEndpoint), credentials: v.Text(optCredentials), userProject: v.Text(optUserProject), caFile: v.Text(optCAFile),
		partSize: int(v.Int(optPartSize)), requestTimeout: v.Duration(optRequestTimeout), maxOpLifetime: v.Duration(ufs.OptionMaxOpLifetime),
		bucket: uri.Host, events: v.Text(events.OptionName),
	}
	if err := p.check(); err != nil {
		return parsed{}, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: err}
	}
	if key := strings.TrimPrefix(uri.Path, "/"); key != "" {
		p.root = key + "/"
	}
	p.canonical, err = v.OverrideDomain(ufs.Canonical{Scheme: scheme, Authority: "gs://" + p.bucket, DomainKey: "/" + strings.TrimSuffix(p.root, "/")})
	return p, err
}

func (p parsed) check() error {
	if p.partSize%(256<<10) != 0 {
		return errors.New("option 'part_size' is not a multiple of 256KiB")
	}
	if p.credentials != credEnv && p.credentials != credAnonymous {
		if ref, err := ufs.ParseSecretRef(p.credentials); err != nil || ref.Name == "" {
			return fmt.Errorf("option 'credentials' is %s, %s, or a reference to a key file: file:/path or env:NAME", credEnv, credAnonymous)
		}
	}
	if p.endpoint == "" {
		return nil
	}
	u, err := url.Parse(p.endpoint)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("option 'endpoint' is not a URL such as https://storage.googleapis.com")
	case u.User != nil:
		return errors.New("option 'endpoint': credentials in the URL; use the option credentials")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return errors.New("option 'endpoint': a path or query in the URL")
	}
	return nil
}

// checkBucket follows Google's rules for names of buckets.
func checkBucket(name string) error {
	if len(name) < 3 || len(name) > 222 {
		return errors.New("a bucket has 3 to 222 characters: gs://bucket/prefix")
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return errors.New("the name of a bucket has lower case letters, digits, '-', '.' and '_' only")
		}
	}
	if strings.Contains("-._", name[:1]) || strings.Contains("-._", name[len(name)-1:]) || strings.Contains(name, "..") {
		return errors.New("the name of a bucket begins and ends with a letter or a digit and has no two dots in a row")
	}
	return nil
}
