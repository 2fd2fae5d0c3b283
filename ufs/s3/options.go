package s3

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/ufs"
	"github.com/freshet-io/freshet/ufs/object"
)

// scheme is the one that this driver opens.
const scheme = "s3"

// Names of the options of an S3 mount.
const (
	optRegion            = "region"
	optEndpoint          = "endpoint"
	optPathStyle         = "path_style"
	optCredentials       = "credentials"
	optAccessKey         = "access_key"
	optSecretKey         = "secret_key"
	optSessionToken      = "session_token"
	optPartSize          = "part_size"
	optUploadConcurrency = "upload_concurrency"
	optRequestTimeout    = "request_timeout"
	optRetries           = "retries"
	optCAFile            = "ca_file"
	optSSE               = "sse"
	optSSEKMSKeyID       = "sse_kms_key_id"
	optSSECKey           = "sse_c_key"
	optStorageClass      = "storage_class"
	optRequesterPays     = "requester_pays"
	optChecksum          = "checksum"
	optRoleARN           = "assume_role_arn"
	optExternalID        = "external_id"
	optRoleSession       = "role_session_name"
	optSTSEndpoint       = "sts_endpoint"
	optCleanForeign      = "clean_untagged_after"
)

// Values of the option credentials.
const (
	credEnv       = "env"
	credIAM       = "iam"
	credAnonymous = "anonymous"
)

// Values of the option checksum.
const (
	checksumRequired  = "when_required"
	checksumSupported = "when_supported"
)

// Options of an Opener; the zero value works.
type Options struct {
	// Log gets warnings; nil drops them.
	Log *slog.Logger
	// Registerer gets the counter of skipped keys; nil keeps it unregistered.
	Registerer prometheus.Registerer
}

// Opener opens s3:// URIs. Safe for concurrent use.
type Opener struct {
	log     *slog.Logger
	skips   prometheus.Counter
	letters letterCounter
}

var _ ufs.Opener = (*Opener)(nil)

// NewOpener returns an Opener; it does nothing yet.
func NewOpener(opts Options) *Opener {
	o := &Opener{log: opts.Log, skips: object.NewSkips(opts.Registerer), letters: newLetterCounter(opts.Registerer)}
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Schemes returns "s3".
func (o *Opener) Schemes() []string { return []string{scheme} }

// OptionTable returns all options that a mount of s3:// may have.
func (o *Opener) OptionTable() ufs.OptionTable { return table() }

// config is a checked Spec.
type config struct {
	region            string
	endpoint          string // "" for AWS
	pathStyle         bool
	credentials       string
	accessKey         string // references
	secretKey         string
	sessionToken      string
	partSize          int
	uploadConcurrency int
	maxOpLifetime     time.Duration
	requestTimeout    time.Duration
	retries           int
	caFile            string
	sse               string
	sseKMSKeyID       string
	sseCKey           string // reference
	storageClass      string
	requesterPays     bool
	checksum          string
	roleARN           string // "" takes on no role
	externalID        string
	roleSession       string
	stsEndpoint       string
	cleanForeign      time.Duration // 0: only uploads that are marked as ours
	events            eventsConfig
	maxCopy, copyPart int64 // limits of the protocol; smaller in tests
}

// algorithm is that of the sums of an upload's parts, "" for none.
func (c config) algorithm() types.ChecksumAlgorithm {
	if c.checksum == checksumSupported {
		return types.ChecksumAlgorithmCrc32
	}
	return ""
}

// where names the endpoint for messages.
func (c config) where() string {
	if c.endpoint == "" {
		return "AWS S3"
	}
	return c.endpoint
}

// patience is how long the answer to a request with n bytes of body may take to
// begin: a slow line still does 128 KiB/s.
func (c config) patience(n int64) time.Duration {
	return c.requestTimeout + time.Duration(n/(128<<10))*time.Second
}

// maxOpLifetime is how long a signed request may still take effect: servers take
// a signature that is up to 15 minutes old or ahead of their clock, so that one
// from a clock that is 15 minutes ahead is good for 30, and a minute is for the
// effect itself (C13).
const maxOpLifetime = 31 * time.Minute

func table() ufs.OptionTable {
	return append(append(append(ufs.CommonOptions(maxOpLifetime), eventOptions()...), ufs.RightsOptions()...), ufs.OptionTable{
		{Name: optRegion, Help: "region of the bucket; default AWS_REGION, else us-east-1"},
		{Name: optEndpoint, Help: "URL of an S3-compatible server; default AWS"},
		{Name: optPathStyle, Type: ufs.OptionBool, Help: "bucket in the path rather than in the host name; default true with an endpoint"},
		{Name: optCredentials, Type: ufs.OptionChoice, Default: credEnv, Choices: []string{credEnv, credIAM, credAnonymous}, Help: "env: the usual AWS variables and files; iam: the role of the machine; anonymous"},
		{Name: optAccessKey, Type: ufs.OptionSecret, Help: "access key, with secret_key instead of credentials"},
		{Name: optSecretKey, Type: ufs.OptionSecret, Help: "secret key"},
		{Name: optSessionToken, Type: ufs.OptionSecret, Help: "session token of temporary keys"},
		{Name: optPartSize, Type: ufs.OptionSize, Default: "8MiB", Min: 5 << 20, Max: 1 << 30, Help: "part of a multipart upload; a writer buffers upload_concurrency + 1 of them"},
		{Name: optUploadConcurrency, Type: ufs.OptionInt, Default: "4", Min: 1, Max: 64, Help: "parts of one file uploaded at a time"},
		{Name: optRequestTimeout, Type: ufs.OptionDuration, Default: "30s", Min: int64(10 * time.Millisecond), Max: int64(10 * time.Minute), Help: "how long the storage may be silent"},
		{Name: optRetries, Type: ufs.OptionInt, Default: "3", Min: 0, Max: 20, Help: "retries of requests that change nothing"},
		{Name: optSSE, Type: ufs.OptionChoice, Choices: []string{sseS3, sseKMS, sseDSSE}, Help: "how the server encrypts what is written; default as the bucket is set up"},
		{Name: optSSEKMSKeyID, Help: "KMS key, with sse=aws:kms or aws:kms:dsse; default the account's own"},
		{Name: optSSECKey, Type: ufs.OptionSecret, Help: "key that the server encrypts with and does not keep: 32 bytes in base64; needs https"},
		{Name: optStorageClass, Help: "storage class of what is written, such as STANDARD_IA; default as the bucket is set up"},
		{Name: optRequesterPays, Type: ufs.OptionBool, Default: "false", Help: "whoever asks pays for it"},
		{Name: optChecksum, Type: ufs.OptionChoice, Default: checksumRequired, Choices: []string{checksumRequired, checksumSupported}, Help: "when_supported: CRC of each upload and whole download; many servers other than AWS refuse it"},
		{Name: optRoleARN, Help: "role to assume through STS with the credentials"},
		{Name: optExternalID, Help: "external ID that the role asks for"},
		{Name: optRoleSession, Default: "freshet", Help: "name of the role's session"},
		{Name: optSTSEndpoint, Help: "URL of STS; default that of AWS in the region"},
		{Name: optCleanForeign, Type: ufs.OptionDuration, Min: int64(time.Hour), Max: int64(365 * 24 * time.Hour), Help: "also end uploads that do not carry our mark, when idle for so long; only if no other program uploads here"},
		{Name: optCAFile, Help: "PEM file of certificate authorities for the endpoint"},
	}...)
}

// parsed is a Spec after all checks without I/O.
type parsed struct {
	config
	canonical    ufs.Canonical
	bucket, root string
}

// Parse checks spec without any I/O. The authority is "s3://bucket", whatever the
// endpoint: two names of one storage must meet. Buckets of equal names at two
// providers are told apart by the option domain; without it they cost each other
// a needless look at the storage, never a stale read.
func (o *Opener) Parse(spec ufs.Spec) (ufs.Canonical, error) {
	p, err := parse(spec)
	return p.canonical, err
}

func parse(spec ufs.Spec) (parsed, error) {
	const op = "parse s3 mount"
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
	p := parsed{config: config{
		region: v.Text(optRegion), endpoint: v.Text(optEndpoint), credentials: v.Text(optCredentials),
		accessKey: v.Text(optAccessKey), secretKey: v.Text(optSecretKey), sessionToken: v.Text(optSessionToken),
		partSize: int(v.Int(optPartSize)), uploadConcurrency: int(v.Int(optUploadConcurrency)),
		maxOpLifetime: v.Duration(ufs.OptionMaxOpLifetime), requestTimeout: v.Duration(optRequestTimeout),
		retries: int(v.Int(optRetries)), caFile: v.Text(optCAFile), maxCopy: maxCopy, copyPart: copyPart,
		sse: v.Text(optSSE), sseKMSKeyID: v.Text(optSSEKMSKeyID), sseCKey: v.Text(optSSECKey),
		storageClass: v.Text(optStorageClass), requesterPays: v.Bool(optRequesterPays), checksum: v.Text(optChecksum),
		roleARN: v.Text(optRoleARN), externalID: v.Text(optExternalID), roleSession: v.Text(optRoleSession), stsEndpoint: v.Text(optSTSEndpoint),
		cleanForeign: v.Duration(optCleanForeign),
	}, bucket: uri.Host}
	if p.events, err = parseEvents(v); err != nil {
		return parsed{}, err
	}
	p.pathStyle = v.Bool(optPathStyle)
	if !v.Has(optPathStyle) {
		p.pathStyle = p.endpoint != ""
	}
	if _, named := spec.Options[optCredentials]; named && p.accessKey != "" {
		return parsed{}, freshet.Errorf(freshet.KindInvalid, op, "", "give either credentials or access_key and secret_key")
	}
	if err := p.check(); err != nil {
		return parsed{}, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: err}
	}
	if key := strings.TrimPrefix(uri.Path, "/"); key != "" {
		p.root = key + "/"
	}
	p.canonical, err = v.OverrideDomain(ufs.Canonical{Scheme: scheme, Authority: "s3://" + p.bucket, DomainKey: "/" + strings.TrimSuffix(p.root, "/")})
	return p, err
}

func (c config) check() error {
	for _, ref := range []string{c.accessKey, c.secretKey, c.sessionToken, c.sseCKey} {
		if ref == credEnv || ref == credIAM {
			return errors.New("access_key, secret_key, session_token and sse_c_key are references to one value: env:NAME or file:/path; use credentials=" + ref)
		}
	}
	switch {
	case (c.accessKey == "") != (c.secretKey == ""):
		return errors.New("access_key and secret_key go together")
	case c.sessionToken != "" && c.accessKey == "":
		return errors.New("session_token needs access_key and secret_key")
	}
	return cmp.Or(c.checkRole(), c.checkEncryption(), checkURL(optEndpoint, c.endpoint), checkURL(optSTSEndpoint, c.stsEndpoint))
}

func (c config) checkRole() error {
	switch {
	case c.roleARN == "" && (c.externalID != "" || c.stsEndpoint != ""):
		return errors.New("external_id and sts_endpoint need assume_role_arn")
	case c.roleARN == "":
		return nil
	case c.accessKey == "" && c.credentials == credAnonymous:
		return errors.New("assume_role_arn needs credentials that are not anonymous")
	case !strings.HasPrefix(c.roleARN, "arn:") || !strings.Contains(c.roleARN, ":role/"):
		return errors.New("option 'assume_role_arn' is not such as arn:aws:iam::123456789012:role/name")
	case len(c.roleSession) < 2 || len(c.roleSession) > 64 || strings.ContainsFunc(c.roleSession, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("+=,.@-_", r)
	}):
		return errors.New("option 'role_session_name': 2 to 64 letters, digits and +=,.@-_")
	}
	return nil
}

func (c config) checkEncryption() error {
	switch {
	case c.sseKMSKeyID != "" && c.sse != sseKMS && c.sse != sseDSSE:
		return errors.New("sse_kms_key_id needs sse=aws:kms or sse=aws:kms:dsse")
	case c.sseCKey != "" && c.sse != "":
		return errors.New("give either sse or sse_c_key")
	case c.sseCKey != "" && strings.HasPrefix(c.endpoint, "http:"):
		return errors.New("sse_c_key needs an https endpoint: the key goes with each request")
	case strings.ContainsFunc(c.storageClass, func(r rune) bool { return (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' }):
		return errors.New("option 'storage_class' is not such as STANDARD_IA")
	}
	return nil
}

// checkURL checks the text of an option that is the URL of a service.
func checkURL(option, text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("option '%s' is not a URL such as https://s3.example.com:9000", option)
	case u.User != nil:
		return fmt.Errorf("option '%s': credentials in the URL; use the option credentials", option)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("option '%s': a path or query in the URL", option)
	}
	return nil
}

// checkBucket allows what S3 servers allow, old names of AWS included.
func checkBucket(name string) error {
	if len(name) < 3 || len(name) > 255 {
		return errors.New("a bucket has 3 to 255 characters: s3://bucket/prefix")
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return errors.New("the name of a bucket has letters, digits, '-', '.' and '_' only; options say which endpoint it is at")
		}
	}
	if name[0] == '.' || strings.Contains(name, "..") {
		return errors.New("the name of a bucket neither begins with a dot nor has two in a row")
	}
	return nil
}
