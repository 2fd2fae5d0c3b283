package demo

import "github.com/spf13/cobra"

// Command returns the command that takes the tour.
func Command(o Options) *cobra.Command {
	c := &cobra.Command{
		Use: "demo", Short: "Two clusters over one shared storage, a guided tour of a minute", Args: cobra.NoArgs,
		Long: "demo starts two clusters as child processes over one shared storage, shows what Freshet promises\n" +
			"with measured times, and exits with 0 only if every step did what it says. Nothing is left behind.",
		Example: "  freshet demo\n  freshet demo --keep\n" +
			"  AWS_REGION=eu-west-1 freshet demo --ufs s3://my-bucket    # credentials as the AWS tools find them",
		RunE: func(cmd *cobra.Command, _ []string) error { return Run(cmd.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.Storage, "ufs", "", "a real storage, such as s3://bucket; embedded if not given")
	f.StringToStringVar(&o.StorageOptions, "option", nil, "option of the storage, key=value; repeatable")
	f.IntVar(&o.Rounds, "rounds", 50, "overwrites to measure, at least 50")
	f.BoolVar(&o.Keep, "keep", false, "leave the clusters up until Ctrl-C and say how to talk to them")
	return c
}
