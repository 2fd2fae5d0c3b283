package azblob

import (
	"errors"
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

// Names of the options of an Azure mount.
const (
	optAccount         = "account"
	optEndpoint        = "endpoint"
	optCredentials     = "credentials"
	optAccountKey      = "account_key"
	optSAS             = "sas"
	optTenantID        = "tenant_id"
	optClientID        = "client_id"
	optClientSecret    = "client_secret"
	optCAFile          = "ca_file"
	optBlockSize       = "block_size"
	optUploads         = "upload_concurrency"
	optTimeout         = "request_timeout"
	optRetries         = "retries"
	optHierarchical    = "hierarchical"
	optDeleteSnapshots = "delete_snapshots"
)

// Values of the option credentials.
const (
	credEnv       = "env"
	credWorkload  = "workload_identity"
	credManaged   = "managed_identity"
	credAnonymous = "anonymous"
)

// maxOpLifetime is how long a signed request may still take effect: the service
// takes a signature by the account key that is up to 15 minutes old or ahead of its
// clock, so that one from a clock that is 15 minutes ahead is good for 30, and a
// minute is for the effect itself (C13). Tokens and SAS are good for longer; what
// bounds a request that is under way then is that nothing between us and the
// service keeps one for half an hour.
const maxOpLifetime = 31 * time.Minute

// Bounds of the protocol.
const (
	listPage = 5000
	maxBlock = 4000 << 20
	blocks   = 50_000
	maxName  = 1024    // characters
	maxBlob  = 1 << 48 // bytes; in truth it is 50,000 blocks of 4000 MiB
)

func schemes() []string { return []string{"abfs", "abfss", "az", "wasb", "wasbs"} }

func table() ufs.OptionTable {
	return append(append(ufs.CommonOptions(maxOpLifetime), ufs.RightsOptions()...), ufs.OptionTable{
		events.Option(),
		{Name: optAccount, Help: "storage account of an az:// URI"},
		{Name: optEndpoint, Help: "URL of the account's Blob service, where it is not the usual one: a private name, or http://host:port/account of an emulator"},
		{Name: optCredentials, Type: ufs.OptionChoice, Default: credEnv, Choices: []string{credEnv, credWorkload, credManaged, credAnonymous}, Help: "env: AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET or a certificate, or workload identity if AZURE_FEDERATED_TOKEN_FILE is set"},
		{Name: optAccountKey, Type: ufs.OptionSecret, Help: "key of the account, instead of credentials"},
		{Name: optSAS, Type: ufs.OptionSecret, Help: "shared access signature, instead of credentials"},
		{Name: optTenantID, Help: "directory of the application"},
		{Name: optClientID, Help: "application, or user-assigned managed identity"},
		{Name: optClientSecret, Type: ufs.OptionSecret, Help: "secret of the application, with tenant_id and client_id, instead of credentials"},
		{Name: optCAFile, Help: "PEM file of certificate authorities for the endpoint"},
		{Name: optBlockSize, Type: ufs.OptionSize, Default: "8MiB", Min: 64 << 10, Max: 1 << 30, Help: "block of an upload; files up to it are written by one request; a writer buffers upload_concurrency + 1 of them"},
		{Name: optUploads, Type: ufs.OptionInt, Default: "4", Min: 1, Max: 64, Help: "blocks of one file uploaded at a time"},
		{Name: optTimeout, Type: ufs.OptionDuration, Default: "30s", Min: int64(10 * time.Millisecond), Max: int64(10 * time.Minute), Help: "how long the storage may be silent"},
		{Name: optRetries, Type: ufs.OptionInt, Default: "3", Min: 0, Max: 20, Help: "retries of requests that change nothing"},
		{Name: optHierarchical, Type: ufs.OptionBool, Default: "false", Help: "the account has a hierarchical namespace: directories are made as such"},
		{Name: optDeleteSnapshots, Type: ufs.OptionBool, Default: "false", Help: "removing a file removes its snapshots; else a file that has some is not removed"},
	}...)
}

// Options of an Opener; the zero value works.
type Options struct {
	// Log gets warnings; nil drops them.
	Log *slog.Logger
	// Registerer gets the counter of skipped names; nil keeps it unregistered.
	Registerer prometheus.Registerer
}

// Opener opens abfs://, abfss://, wasb://, wasbs:// and az:// URIs. Safe for
// concurrent use.
type Opener struct {
	log   *slog.Logger
	skips prometheus.Counter
}

var _ ufs.Opener = (*Opener)(nil)

// NewOpener returns an Opener; it does nothing yet.
func NewOpener(opts Options) *Opener {
	return &Opener{log: opts.Log, skips: object.NewSkips(opts.Registerer)}
}

// Schemes returns the schemes of URIs.
func (o *Opener) Schemes() []string { return schemes() }

// OptionTable returns all options that a mount of Azure may have.
func (o *Opener) OptionTable() ufs.OptionTable { return table() }

// config is a checked Spec.
type config struct {
	account         string
	container       string
	root            string // "" or with a slash at the end
	endpoint        string // URL of the account
	ownEndpoint     bool   // it was an option
	credentials     string
	accountKey      string // references
	sas             string
	tenantID        string
	clientID        string
	clientSecret    string
	caFile          string
	blockSize       int
	uploads         int
	timeout         time.Duration
	retries         int
	hierarchical    bool
	deleteSnapshots bool
	maxOpLifetime   time.Duration
	events          string
}

// place is where the mount lies, in the storage's own names.
func (c config) place() ufs.Place {
	return ufs.Place{Authority: "abfs://" + c.container + "@" + c.account, Key: "/" + strings.TrimSuffix(c.root, "/")}
}

// Parse checks spec without any I/O. The authority is "abfs://container@account",
// whatever the scheme and endpoint: two names of one storage must meet.
func (o *Opener) Parse(spec ufs.Spec) (ufs.Canonical, error) {
	_, c, err := parse(spec)
	return c, err
}

func parse(spec ufs.Spec) (config, ufs.Canonical, error) {
	const op = "parse azure mount"
	fail := func(err error) (config, ufs.Canonical, error) {
		return config{}, ufs.Canonical{}, &freshet.Error{Op: op, Kind: freshet.KindInvalid, Err: err}
	}
	uri, err := ufs.ParseURI(spec.URI)
	if err != nil {
		return config{}, ufs.Canonical{}, err
	}
	v, err := table().Check(uri.Scheme, spec.Options)
	if err != nil {
		return config{}, ufs.Canonical{}, err
	}
	c := config{
		credentials: v.Text(optCredentials), accountKey: v.Text(optAccountKey), sas: v.Text(optSAS),
		tenantID: v.Text(optTenantID), clientID: v.Text(optClientID), clientSecret: v.Text(optClientSecret),
		caFile: v.Text(optCAFile), blockSize: int(v.Int(optBlockSize)), uploads: int(v.Int(optUploads)),
		timeout: v.Duration(optTimeout), retries: int(v.Int(optRetries)), hierarchical: v.Bool(optHierarchical),
		deleteSnapshots: v.Bool(optDeleteSnapshots), maxOpLifetime: v.Duration(ufs.OptionMaxOpLifetime),
		events: v.Text(events.OptionName),
	}
	var suffix string
	if c.container, c.account, suffix, err = names(uri, v.Text(optAccount)); err != nil {
		return fail(err)
	}
	c.endpoint = "https://" + c.account + ".blob." + suffix
	if text := v.Text(optEndpoint); text != "" {
		if c.endpoint, err = c.checkEndpoint(text); err != nil {
			return fail(err)
		}
		c.ownEndpoint = true
	}
	if unnameable(uri.Path) {
		return fail(errors.New("a backslash in the path: Azure takes it for a slash"))
	}
	_, named := spec.Options[optCredentials]
	if err := c.checkCredentials(named); err != nil {
		return fail(err)
	}
	if key := strings.TrimPrefix(uri.Path, "/"); key != "" {
		c.root = key + "/"
	}
	at := c.place()
	canonical, err := v.OverrideDomain(ufs.Canonical{Scheme: uri.Scheme, Authority: at.Authority, DomainKey: at.Key})
	return c, canonical, err
}

// names takes "container@account.dfs.core.windows.net" apart; for az:// the URI
// has the container alone.
func names(uri ufs.URI, option string) (container, account, suffix string, err error) {
	container, host, found := strings.Cut(uri.Host, "@")
	if uri.Scheme == "az" {
		if found || option == "" {
			return "", "", "", errors.New("az://container/path needs the option account; abfs://container@account/path does not")
		}
		host = option
	} else if !found {
		return "", "", "", errors.New("the URI names no account: abfs://container@account.dfs.core.windows.net/path")
	} else if option != "" {
		return "", "", "", errors.New("the URI names the account: the option account is for az:// URIs")
	}
	account, rest, dotted := strings.Cut(strings.ToLower(host), ".")
	suffix = "core.windows.net"
	if dotted {
		service, domain, ok := strings.Cut(rest, ".")
		if zone, after, zoned := strings.Cut(domain, "."); strings.HasPrefix(service, "z") && zoned && (zone == "dfs" || zone == "blob") {
			return container, account, "", errors.New("accounts with a DNS zone are named by the option endpoint: https://" + account + "." + service + ".blob." + after)
		}
		known := domain == "core.windows.net" || domain == "core.chinacloudapi.cn" || domain == "core.usgovcloudapi.net"
		if !ok || service != "dfs" && service != "blob" || !known {
			return "", "", "", errors.New("the host is not account.dfs.core.windows.net, account.blob.core.windows.net or that of a sovereign cloud; another one is given by the option endpoint, and the URI then has the account alone: abfs://container@account/path")
		}
		suffix = domain
	}
	if !nameOf(account, 3, 24, "") {
		return "", "", "", errors.New("a storage account has 3 to 24 lower-case letters and digits")
	}
	if container != "$root" && container != "$web" && !nameOf(container, 3, 63, "-") {
		return "", "", "", errors.New("a container has 3 to 63 lower-case letters, digits and '-': abfs://container@account.dfs.core.windows.net/path")
	}
	return container, account, suffix, nil
}

func nameOf(s string, low, high int, more string) bool {
	return len(s) >= low && len(s) <= high && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune(more, r)
	})
}

// checkEndpoint returns the URL of the account's service. Emulators have the
// account in the path.
func (c config) checkEndpoint(text string) (string, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https":
		return "", errors.New("option 'endpoint' is not a URL such as https://account.privatelink.example.com")
	case u.User != nil:
		return "", errors.New("option 'endpoint': credentials in the URL; use the option account_key or sas")
	case u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("option 'endpoint': a query in the URL; a shared access signature is given by the option sas")
	}
	if path := strings.Trim(u.Path, "/"); path != "" && path != c.account {
		return "", errors.New("option 'endpoint': the path is not the account " + c.account)
	}
	return strings.TrimSuffix(u.Scheme+"://"+u.Host+"/"+strings.Trim(u.Path, "/"), "/"), nil
}

// origin is the endpoint without the account.
func (c config) origin() string {
	u, err := url.Parse(c.endpoint)
	if err != nil {
		return c.endpoint
	}
	return u.Scheme + "://" + u.Host
}

func (c config) checkCredentials(named bool) error {
	given := 0
	for _, ref := range []string{c.accountKey, c.sas, c.clientSecret} {
		if ref == "" {
			continue
		}
		given++
		if ref == string(ufs.SecretEnv) || ref == string(ufs.SecretIAM) {
			return errors.New("account_key, sas and client_secret are references to one value: env:NAME or file:/path")
		}
	}
	switch {
	case given > 1, given == 1 && named:
		return errors.New("give one of credentials, account_key, sas and client_secret")
	case c.clientSecret != "" && (c.tenantID == "" || c.clientID == ""):
		return errors.New("client_secret needs tenant_id and client_id")
	case c.clientSecret == "" && c.tenantID != "" && c.credentials != credWorkload:
		return errors.New("tenant_id goes with client_secret or credentials=workload_identity")
	case c.clientSecret == "" && c.clientID != "" && c.credentials != credWorkload && c.credentials != credManaged:
		return errors.New("client_id goes with client_secret, credentials=workload_identity or credentials=managed_identity")
	case strings.HasPrefix(c.endpoint, "http:") && c.accountKey == "" && c.sas == "" && c.credentials != credAnonymous:
		return errors.New("tokens are not sent over http: use an https endpoint")
	}
	return nil
}
