# Share of the nearer limit that products reach, from results/kernels.csv alone (make plots): a panel for each instruction set in
# the file, a line for each of some types. Few tokens are limited by reading, many by multiplying.
set terminal svg size 1000,700 dynamic font "sans,12"
set output "results/plots/kernels.svg"
set datafile separator ","
isas = system("awk -F, 'NR > 1 && !seen[$3]++ {printf \"%s \", $3}' results/kernels.csv")
types = "Q4_K Q6_K Q8_0 Q4_0 F16 F32"
set logscale x 2
set xrange [0.9:600]
set yrange [0:105]
set xtics (1, 2, 4, 8, 16, 64, 512)
set xlabel "tokens"
set ylabel "% of the nearer limit"
set grid
set key bottom right maxrows 2
set multiplot layout (words(isas) + 1) / 2, words(isas) > 1 ? 2 : 1 title "prima: products of one thread beside this machine's limits"
do for [isa in isas] {
    set title isa
    plot for [t in types] "results/kernels.csv" every ::1 \
        using (strcol(3) eq isa && strcol(5) eq t ? column(7) : NaN):(column(11) > column(14) ? column(11) : column(14)) \
        with linespoints pointtype 7 pointsize 0.5 linewidth 2 title t noenhanced
}
unset multiplot
