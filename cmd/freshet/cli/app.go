// Package cli owns the command line: commands, flags, output and exit codes. It
// calls a cluster as any client does and decides nothing about data.
package cli

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/client"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
	"github.com/freshet-io/freshet/rpc/local"
)

// Streams are where a command reads and writes.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	// Terminal says that Err is a terminal: progress is drawn there.
	Terminal bool
	Getenv   func(string) string
}

// app is what all commands share.
type app struct {
	Streams

	addr           string
	cacert         string
	cert, key      string
	user           string
	socketDir      string
	output         string
	noColor        bool
	timeout        time.Duration
	commandStarted bool
	lastProgress   time.Time // of a plain line
}

// Server adds the commands that run servers; cmd wires them.
type Server func(streams Streams) []*cobra.Command

// Run executes the command line args and returns the exit code.
func Run(ctx context.Context, args []string, streams Streams, servers Server) int {
	a := &app{Streams: streams}
	root := a.root()
	if servers != nil {
		root.AddCommand(servers(streams)...)
	}
	root.SetArgs(append([]string{}, args...)) // nil would be those of the process
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return freshet.ExitOK
	}
	if code, ok := errors.AsType[*exitError](err); ok {
		if code.err != nil {
			fmt.Fprintln(a.Err, "Error:", code.err)
		}
		return code.code
	}
	fmt.Fprintln(a.Err, "Error:", explainError(err))
	if !a.commandStarted && freshet.KindOf(err) == freshet.KindInternal {
		return freshet.ExitUsage // cobra's own: unknown command, flag or argument
	}
	return freshet.KindOf(err).Info().Exit
}

// exitError ends the command with a certain code; err may be nil if all was said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// explainError adds what to do about the errors that people meet first.
func explainError(err error) string {
	text := err.Error()
	// An error that names an operation came from a coordinator that did answer.
	if op, _ := rpc.RemoteDetail(err); op == "" && freshet.IsKind(err, freshet.KindUnavailable) && strings.Contains(text, "connection refused") {
		return text + "\nIs a cluster running there? Start one with 'freshet dev', or name another with --addr or FRESHET_ADDR."
	}
	return text
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "freshet",
		Short: "Data close to your jobs in every region, never stale unnoticed",
		Long: "Freshet caches shared storage (S3, HDFS, Azure Blob, GCS, local or NFS) close to the jobs that read it,\n" +
			"in every region, and tells all regions at once which paths changed.",
		Example: "  freshet demo                                    # two clusters, a guided tour of a minute\n" +
			"  freshet dev --ufs file:///data                  # one cluster in one process\n" +
			"  freshet mount add /sales s3://acme-sales --option region=eu-west-1\n" +
			"  freshet fs ls /sales\n" +
			"  freshet explain /sales/part-7.parquet           # why is it (not) fresh?",
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRunE: func(cmd *cobra.Command, args []string) error {
			if err := cmd.ValidateRequiredFlags(); err != nil {
				return err // a usage error, as the others of the library
			}
			if err := cmd.ValidateFlagGroups(); err != nil {
				return err // as above
			}
			a.commandStarted = true
			return errors.Join(a.checkFlags(), checkText(args))
		},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.addr, "addr", a.env("FRESHET_ADDR", "127.0.0.1:7400"), "coordinators to ask, host:port, comma-separated, tried in order (env FRESHET_ADDR)")
	f.StringVar(&a.cacert, "cacert", a.env("FRESHET_CACERT", ""), "PEM file of the certificate authority; switches TLS on (env FRESHET_CACERT)")
	f.StringVar(&a.cert, "cert", a.env("FRESHET_CERT", ""), "PEM file of the client certificate (env FRESHET_CERT)")
	f.StringVar(&a.key, "key", a.env("FRESHET_KEY", ""), "PEM file of the client key (env FRESHET_KEY)")
	f.StringVar(&a.user, "user", a.env("FRESHET_USER", ""), "in whose name to call; by default the user of the system who runs this (env FRESHET_USER)")
	f.StringVar(&a.socketDir, "socket-dir", a.env("FRESHET_SOCKET_DIR", ""), "where the Unix sockets of cache nodes on this host are, if not where the nodes say, for reads and writes; \"none\" leaves them alone (env FRESHET_SOCKET_DIR)")
	f.StringVarP(&a.output, "output", "o", "table", "output format: table, json or yaml")
	f.BoolVar(&a.noColor, "no-color", a.env("NO_COLOR", "") != "", "no colour (env NO_COLOR)")
	f.DurationVar(&a.timeout, "timeout", 30*time.Second, "give up after this time; 0 waits for ever (transfers, listings and syncs are bounded only if it is given)")
	root.AddCommand(a.mountCommand(), a.syncCommand(), a.persistCommand(), a.quotaCommand(), a.policyCommand(), a.cacheCommand(), a.fsCommand(), a.explainCommand(), a.checkCommand(), a.peersCommand(),
		a.clusterCommand(), a.benchCommand(), a.top(), a.configCommand(), a.applyCommand(), a.planCommand(), a.versionCommand())
	return root
}

func (a *app) env(name, fallback string) string {
	if a.Getenv != nil {
		if v := a.Getenv(name); v != "" {
			return v
		}
	}
	return fallback
}

// checkText refuses paths of the namespace that could not be sent.
func checkText(args []string) error {
	for _, arg := range args {
		if strings.HasPrefix(arg, "/") && !utf8.ValidString(arg) {
			return freshet.Errorf(freshet.KindInvalid, "read arguments", "", "%q is not valid UTF-8", arg)
		}
	}
	return nil
}

func (a *app) checkFlags() error {
	switch a.output {
	case "table", "json", "yaml":
		return nil
	}
	return freshet.Errorf(freshet.KindInvalid, "read flags", "", "--output %q is not table, json or yaml", a.output)
}

// session is a connection to a cluster.
type session struct {
	ns       freshetv1.NamespaceServiceClient
	mounts   freshetv1.MountServiceClient
	policies freshetv1.PolicyServiceClient
	cluster  freshetv1.ClusterServiceClient
	check    freshetv1.CheckServiceClient
	syncs    freshetv1.SyncServiceClient
	cache    freshetv1.CacheServiceClient
	fleet    freshetv1.FleetServiceClient
	persist  freshetv1.PersistServiceClient
	access   freshetv1.AccessServiceClient
	state    freshetv1.StateServiceClient
	members  *rpc.Conns // to single members
	coord    *rpc.Coordinator
	files    *client.Client
	leasing  func(*client.Leases) *client.Client // files, but with leases
}

// keep has files keep answers of the coordinator, for a command that reads the same files
// again and again, until the returned function is called.
func (s *session) keep(ctx context.Context) (stop func()) {
	kept := client.NewLeases(s.coord.Leases(), client.LeaseOptions{})
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = kept.Run(ctx) }) // it never fails
	before := s.files
	s.files = s.leasing(kept)
	return func() {
		cancel()
		running.Wait() // the leader was told that nothing is kept
		s.files = before
	}
}

// with runs f with a connection, bounded by --timeout.
func (a *app) with(cmd *cobra.Command, f func(ctx context.Context, s *session) error) error {
	return a.within(cmd, a.timeout, f)
}

// withUnbounded is for what takes as long as there is much: it is bounded only if
// the user said how long it may take.
func (a *app) withUnbounded(cmd *cobra.Command, f func(ctx context.Context, s *session) error) error {
	if given := cmd.Flag("timeout"); given != nil && given.Changed {
		return a.within(cmd, a.timeout, f)
	}
	return a.within(cmd, 0, f)
}

// within runs f with a connection, no longer than limit unless that is 0.
func (a *app) within(cmd *cobra.Command, limit time.Duration, f func(ctx context.Context, s *session) error) error {
	if limit <= 0 {
		return a.connected(cmd.Context(), f)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	err := a.connected(ctx, f)
	if _, said := errors.AsType[*exitError](err); said {
		return err // what was done until then
	}
	if err == nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) || freshet.IsKind(err, freshet.KindNotExist, freshet.KindPermission, freshet.KindConflict) {
		return err
	}
	return freshet.Errorf(freshet.KindDeadline, strings.TrimPrefix(cmd.CommandPath(), cmd.Root().Name()+" "), "", "no answer within %s (--timeout sets how long to wait); a change that was asked for may still happen", limit)
}

// whyCutShort says why a command that waits ended before what it waits for.
func (a *app) whyCutShort(ctx context.Context) string {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Sprintf("it was not done within %s (--timeout)", a.timeout)
	}
	return "the command was interrupted"
}

// stoppedWaiting is the error of a command that waited for what goes on without it.
func (a *app) stoppedWaiting(ctx context.Context, op, goesOn string) error {
	return &exitError{code: freshet.KindDeadline.Info().Exit, err: fmt.Errorf("%s: %s: stopped waiting; %s", op, a.whyCutShort(ctx), goesOn)}
}

func (a *app) connected(ctx context.Context, f func(ctx context.Context, s *session) error) error {
	tlsConfig, err := a.tls()
	if err != nil {
		return err
	}
	name := a.caller()
	conn, err := rpc.Dial(splitList(a.addr), rpc.DialOptions{TLS: tlsConfig, User: name})
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the process ends anyway
	nodes := rpc.NewConns(rpc.DialOptions{TLS: tlsConfig, User: name, MaxMessage: rpc.MaxDataMessage, NoRetry: true})
	defer func() { _ = nodes.Close() }() // as above
	coord := rpc.NewCoordinator(conn)
	pool := local.New(rpc.NewNodePool(nodes), a.localOptions())
	defer func() { _ = pool.Close() }() // as above
	host := a.env("FRESHET_HOST", "")
	if host == "" {
		host, _ = os.Hostname() // a hint only
	}
	leasing := func(kept *client.Leases) *client.Client {
		return client.New(coord, pool, client.Options{
			Host: host, Rack: a.env("FRESHET_RACK", ""), Zone: a.env("FRESHET_ZONE", ""), Leases: kept,
		})
	}
	s := &session{
		ns: freshetv1.NewNamespaceServiceClient(conn), mounts: freshetv1.NewMountServiceClient(conn),
		policies: freshetv1.NewPolicyServiceClient(conn), cluster: freshetv1.NewClusterServiceClient(conn), check: freshetv1.NewCheckServiceClient(conn),
		syncs: freshetv1.NewSyncServiceClient(conn), cache: freshetv1.NewCacheServiceClient(conn), fleet: freshetv1.NewFleetServiceClient(conn), persist: freshetv1.NewPersistServiceClient(conn),
		access: freshetv1.NewAccessServiceClient(conn), state: freshetv1.NewStateServiceClient(conn), members: nodes,
		coord: coord, files: leasing(nil), leasing: leasing,
	}
	return rpc.ErrorOf(f(ctx, s))
}

// localOptions says how blocks on this host are read.
func (a *app) localOptions() local.Options {
	if a.socketDir == "none" {
		return local.Options{Off: true}
	}
	return local.Options{Dir: a.socketDir}
}

// caller returns in whose name calls are made, "" for a user of the system without a
// name that could be sent.
func (a *app) caller() string {
	if a.user != "" {
		return a.user
	}
	self, err := user.Current()
	if err != nil || rpc.CheckUser(self.Username) != nil {
		return ""
	}
	return self.Username
}

func (a *app) tls() (*tls.Config, error) {
	if a.cacert == "" && a.cert == "" && a.key == "" {
		return nil, nil //nolint:nilnil // no TLS, no error
	}
	if a.cert == "" && a.key == "" {
		return rpc.ClientTLS(a.cacert)
	}
	id, err := rpc.LoadIdentity(rpc.TLSFiles{CA: a.cacert, Cert: a.cert, Key: a.key})
	if err != nil {
		return nil, err
	}
	return id.Client(), nil
}

func splitList(s string) []string {
	var out []string
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			out = append(out, item)
		}
	}
	return out
}
