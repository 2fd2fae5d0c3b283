package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/freshet-io/freshet"
	"github.com/freshet-io/freshet/acl"
	freshetv1 "github.com/freshet-io/freshet/proto/freshet/v1"
	"github.com/freshet-io/freshet/rpc"
)

func (a *app) fsGetfacl() *cobra.Command {
	return &cobra.Command{
		Use: "getfacl PATH", Short: "Show the access control list that the storage keeps of an entry", Args: cobra.ExactArgs(1),
		Example: "  freshet fs getfacl /wh/2026\n  freshet fs getfacl /wh/2026 -o json",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.access.GetACL(ctx, &freshetv1.GetACLRequest{Path: args[0]})
				if err != nil {
					return err
				}
				if a.output != "table" {
					return a.print(r, nil)
				}
				list, err := rpc.ACLOfWire(r)
				if err != nil {
					return err
				}
				_, err = fmt.Fprintf(a.Out, "# file: %s\n# owner: %s\n# group: %s\n%s\n", safe(r.GetPath()), safe(r.GetOwner()), safe(r.GetGroup()), list.List.Text())
				return err
			})
		},
	}
}

// aclFlags are the ways to change a list, of which a call has one.
type aclFlags struct {
	modify, remove, set      string
	removeAll, removeDefault bool
}

func (f *aclFlags) register(c *cobra.Command) {
	fl := c.Flags()
	fl.StringVarP(&f.modify, "modify", "m", "", "add or change these entries, such as user:alice:r-x,default:group:dev:rwx")
	fl.StringVarP(&f.remove, "remove", "x", "", "remove these entries, such as user:alice,default:group:dev")
	fl.StringVar(&f.set, "set", "", "replace the list by these entries")
	fl.BoolVarP(&f.removeAll, "remove-all", "b", false, "remove all but owner, group and other")
	fl.BoolVarP(&f.removeDefault, "remove-default", "k", false, "remove the default entries")
	c.MarkFlagsMutuallyExclusive("modify", "remove", "set", "remove-all", "remove-default")
	c.MarkFlagsOneRequired("modify", "remove", "set", "remove-all", "remove-default")
}

func (f *aclFlags) change() (c acl.Change, err error) {
	switch {
	case f.removeAll:
		c.Kind = acl.RemoveAll
	case f.removeDefault:
		c.Kind = acl.RemoveDefault
	case f.remove != "":
		c.Kind = acl.Remove
		c.Entries, err = acl.ParseNames(f.remove)
	case f.set != "":
		c.Kind = acl.Set
		c.Entries, err = acl.Parse(f.set)
	default:
		c.Entries, err = acl.Parse(f.modify)
	}
	if err == nil {
		err = c.Check()
	}
	if err != nil {
		err = freshet.Errorf(freshet.KindInvalid, "setfacl", "", "%w", err)
	}
	return c, err
}

// ofFile leaves out of a change what only directories have, as setfacl -R does;
// false if nothing is left.
func ofFile(c acl.Change) (acl.Change, bool) {
	if c.Kind == acl.RemoveAll {
		return c, true
	}
	c.Entries = c.Entries.Scope(false)
	return c, len(c.Entries) > 0
}

func (a *app) fsSetfacl() *cobra.Command {
	c := &attributes{app: a}
	var f aclFlags
	cmd := &cobra.Command{
		Use: "setfacl -m|-x|-b|-k|--set ENTRIES PATH…", Short: "Change the access control list that the storage keeps", Args: cobra.MinimumNArgs(1),
		Example: "  freshet fs setfacl -m user:alice:r-x /wh/2026\n  freshet fs setfacl -R -m group:dev:rwx,default:group:dev:rwx /wh/2026\n  freshet fs setfacl -b /wh/2026/a.csv",
		RunE: func(cmd *cobra.Command, args []string) error {
			change, err := f.change()
			if err != nil {
				return err
			}
			c.what = "changed the access control list of"
			forFiles, some := ofFile(change)
			c.skip = func(e *freshetv1.Entry) bool { return !some && !isDirectory(e) }
			c.do = func(ctx context.Context, s *session, e *freshetv1.Entry) (freshet.Completed, error) {
				q := freshet.SetACLQuery{Path: freshet.Path(e.GetPath()), Change: change}
				if c.recursive && !isDirectory(e) {
					q.Change = forFiles
				}
				return s.coord.SetACL(ctx, q)
			}
			return c.run(cmd, args)
		},
	}
	f.register(cmd)
	c.register(cmd)
	return cmd
}

func (a *app) fsXattr() *cobra.Command {
	return group("xattr", "Work with the extended attributes that the storage keeps",
		"  freshet fs xattr set /wh/2026 user.owner etl-team\n"+
			"  freshet fs xattr ls /wh/2026\n"+
			"  freshet fs xattr get /wh/2026 user.owner\n"+
			"  freshet fs xattr rm /wh/2026 user.owner",
		a.xattrLs(), a.xattrGet(), a.xattrSet(), a.xattrRm())
}

func (a *app) xattrLs() *cobra.Command {
	return &cobra.Command{
		Use: "ls PATH", Short: "List the extended attributes of an entry", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.access.ListXattrs(ctx, &freshetv1.ListXattrsRequest{Path: args[0]})
				if err != nil {
					return err
				}
				return a.print(r, func(t *table) {
					t.row("NAME", "BYTES", "VALUE")
					for _, x := range r.GetXattrs() {
						t.row(x.GetName(), len(x.GetValue()), valueText(x.GetValue()))
					}
				})
			})
		},
	}
}

// valueText shows the beginning of a value; what is not text is quoted.
func valueText(b []byte) string {
	const most = 64
	more := ""
	if len(b) > most {
		b, more = b[:most], "…"
	}
	if utf8.Valid(b) && !slices.ContainsFunc([]rune(string(b)), unsafeRune) {
		return string(b) + more
	}
	return strconv.Quote(string(b)) + more
}

func (a *app) xattrGet() *cobra.Command {
	return &cobra.Command{
		Use: "get PATH NAME", Short: "Write the value of an extended attribute to stdout, byte by byte", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, func(ctx context.Context, s *session) error {
				r, err := s.access.ListXattrs(ctx, &freshetv1.ListXattrsRequest{Path: args[0], Name: args[1]})
				if err != nil {
					return err
				}
				if a.output != "table" {
					return a.print(r.GetXattrs()[0], nil)
				}
				_, err = a.Out.Write(r.GetXattrs()[0].GetValue())
				return err
			})
		},
	}
}

func (a *app) xattrSet() *cobra.Command {
	var file string
	var create, replace, dryRun bool
	c := &cobra.Command{
		Use: "set PATH NAME [VALUE]", Short: "Set an extended attribute; names begin with user.", Args: cobra.RangeArgs(2, 3),
		Example: "  freshet fs xattr set /wh/2026 user.owner etl-team\n  freshet fs xattr set /wh/2026 user.schema --file schema.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			q := freshet.SetXattrQuery{Name: args[1]}
			var err error
			if q.Path, err = freshet.ParsePath(args[0]); err == nil {
				err = freshet.CheckXattrName("set attribute", q.Path, q.Name)
			}
			if err != nil {
				return err
			}
			switch given := cmd.Flag("file").Changed; {
			case given == (len(args) == 3):
				return freshet.Errorf(freshet.KindInvalid, "set attribute", "", "give the value either as an argument or by --file")
			case given:
				if q.Value, err = a.readValue(file); err != nil {
					return err
				}
			default:
				q.Value = []byte(args[2])
			}
			switch {
			case create:
				q.When = freshet.XattrCreate
			case replace:
				q.When = freshet.XattrReplace
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				if dryRun {
					if _, err := s.coord.Xattrs(ctx, q.Path); err != nil {
						return err
					}
					return a.wouldChange(q.Path, "set %s of %s", q.Name, q.Path)
				}
				done, err := s.coord.SetXattr(ctx, q)
				return a.done(q.Path, done, err)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&file, "file", "", "read the value from this file, - for stdin")
	f.BoolVar(&create, "create", false, "only if it is not there (else exit 4)")
	f.BoolVar(&replace, "replace", false, "only if it is there (else exit 3)")
	f.BoolVar(&dryRun, "dry-run", false, "check, change nothing")
	c.MarkFlagsMutuallyExclusive("create", "replace")
	return c
}

// readValue reads a value from a file or stdin.
func (a *app) readValue(name string) ([]byte, error) {
	in := a.In
	if name != "-" {
		f, err := os.Open(name) //nolint:gosec // named by the user
		if err != nil {
			return nil, freshet.Errorf(freshet.KindInvalid, "read value", "", "%w", err)
		}
		defer func() { _ = f.Close() }() // read only
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, freshet.MaxXattr+1))
	switch {
	case err != nil:
		return nil, freshet.Errorf(freshet.KindInvalid, "read value", "", "%w", err)
	case len(b) > freshet.MaxXattr:
		return nil, freshet.Errorf(freshet.KindInvalid, "read value", "", "more than the %d bytes that an attribute may have", freshet.MaxXattr)
	}
	return b, nil
}

func (a *app) xattrRm() *cobra.Command {
	var dryRun bool
	c := &cobra.Command{
		Use: "rm PATH NAME", Short: "Remove an extended attribute", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := freshet.ParsePath(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, func(ctx context.Context, s *session) error {
				if dryRun {
					if _, err := s.access.ListXattrs(ctx, &freshetv1.ListXattrsRequest{Path: string(p), Name: args[1]}); err != nil {
						return err
					}
					return a.wouldChange(p, "removed %s of %s", args[1], p)
				}
				done, err := s.coord.RemoveXattr(ctx, freshet.RemoveXattrQuery{Path: p, Name: args[1]})
				return a.done(p, done, err)
			})
		},
	}
	c.Flags().BoolVar(&dryRun, "dry-run", false, "check, change nothing")
	return c
}
