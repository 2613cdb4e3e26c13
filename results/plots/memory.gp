# Time per token over the memory that a process may take, from results/memory.csv alone (make plots).
set terminal svg size 1000,600 dynamic font "sans,12"
set output "results/plots/memory.svg"
set datafile separator ","
set datafile missing NaN
set title "prima: decoding with a part of the weights in memory, each process in a memory control group" noenhanced font ",11"
set xlabel "memory, % of the weights"
set ylabel "ms a token, over all sequences (logarithmic)"
set logscale y
set grid xtics ytics mytics
set key outside below maxcols 2 noenhanced
set xrange [*:*] noextend
set offsets 3, 3, 0, 0
# Of one mode and number of sequences; the time of a step over its sequences, with least and most.
mine(mode, n, c) = strcol(5) eq mode && column(9) == n && strlen(strcol(11)) ? column(c) / n : NaN
dash(mode) = mode eq "streamed" ? 1 : 3
numbers = system("awk -F, 'NR > 1 && !seen[$9]++ { print $9 }' results/memory.csv | sort -n")
plot for [i = 1:words(numbers)] for [mode in "streamed mapped"] n = word(numbers, i) + 0 \
         "results/memory.csv" every ::1 using 6:(mine(mode, n, 11)):(mine(mode, n, 12)):(mine(mode, n, 13)) \
         with yerrorlines pt (mode eq "streamed" ? 7 : 6) lc i dt dash(mode) \
         title sprintf("%s, %d sequence%s", mode, n, n > 1 ? "s" : ""), \
     for [i = 1:words(numbers)] n = word(numbers, i) + 0 \
         "" every ::1 using 6:(mine("streamed", n, 24)) with lines lw 2 lc i dt 2 \
         title sprintf("floor, %d sequence%s", n, n > 1 ? "s" : "")
