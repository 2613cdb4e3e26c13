# Prefill and decode rates, from results/decode.csv alone (make plots). A bar a row; the last rows of the file are the newest.
set terminal svg size 1000,600 dynamic font "sans,12"
set output "results/plots/decode.svg"
set datafile separator ","
set title "prima: tokens a second (median of the repetitions)"
set style data histograms
set style fill solid 0.8
set logscale y
set ylabel "tokens/s (log)"
set xtics rotate by 90 right noenhanced font ",9"
set bmargin 9
set grid ytics
unset key
plot "results/decode.csv" every ::1 using 12:xtic(sprintf("%s %s t%s x%s", strcol(6), strcol(8), strcol(4), strcol(9))) linecolor rgb "#3465a4"
